"""Sensing: each site measures its links to the others and its own load."""
