"""The node of a site and the roles that it plays."""
