"""Models at work: recipes that answer, and the process in which they do."""
