"""Models that travel by themselves: a site hosts those of others and is home to its own."""
