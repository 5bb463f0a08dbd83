"""Everything about a job in one page, for its model's owner."""
