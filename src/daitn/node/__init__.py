"""A site's node and its roles."""
