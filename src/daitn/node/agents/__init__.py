"""Models that travel on their own: a site hosts those of others and is home to its own."""
