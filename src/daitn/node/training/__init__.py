"""The roles `data` and `compute`: work is queued, done in a child process, and reported."""
