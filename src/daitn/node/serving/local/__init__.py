"""Models of the facility's own: files and folders for which its node runs servers."""
