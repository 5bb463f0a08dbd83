"""Training recipes and their evaluation. The only package that imports torch."""
