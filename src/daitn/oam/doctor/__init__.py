"""Examines a network's requirements, and says how to fix problems."""
