"""Each system's way to do a task on given hosts."""
