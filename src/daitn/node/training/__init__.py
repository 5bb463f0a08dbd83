"""The roles `data` and `compute`: they queue work, do it in a child process and report it."""
