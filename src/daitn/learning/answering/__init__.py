"""Deployed models: recipes that answer, and the process that runs them."""
