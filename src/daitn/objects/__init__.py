"""Frozen values of DA-ITN: descriptors, intents, AI objects, lineage, units, events, errors.

Everything that crosses a boundary (wire, disk, screen) is defined in this package and nowhere
else. Nothing in here does I/O, reads a clock or draws a random number.
"""
