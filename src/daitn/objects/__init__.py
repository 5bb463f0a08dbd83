"""Frozen values of DA-ITN: descriptors, intents, AI objects, lineage, units, events, errors.

This package defines everything that crosses a boundary (wire, disk, screen), and nothing in it does
I/O, reads a clock or draws a random number.
"""
