"""Command line, composition root and embedded mode."""
