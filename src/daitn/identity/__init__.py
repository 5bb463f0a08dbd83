"""Keys, signatures and data owners' policies."""
