"""Seams to engines, each with its in-memory twin: fabric, model mobility, sensing, the stores."""
