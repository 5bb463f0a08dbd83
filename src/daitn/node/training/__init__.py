"""The roles `data` and `compute`: queue work, do it in a child process and report it."""
