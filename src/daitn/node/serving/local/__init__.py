"""Models of the facility's own: files and folders that its node runs servers for."""
