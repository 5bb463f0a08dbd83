"""The role `facility`: models that answer queries at this site, and the API server in front of
them."""
