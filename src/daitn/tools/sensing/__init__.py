"""Sensing: each site measures how it reaches the others and how busy it is."""
