"""The distance vector of capability summaries: who is reached, how far, and what they offer."""
