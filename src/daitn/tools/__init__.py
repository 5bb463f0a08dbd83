"""Interfaces to the outside, each with an in-memory implementation: fabric, model mobility,
sensing, stores."""
