"""Engines' edges: the fabric, model mobility, sensing and the stores, each with its twin."""
