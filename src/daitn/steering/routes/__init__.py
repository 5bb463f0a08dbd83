"""The distance vector of capability summaries: reachable origins, their distances and offers."""
