"""How each system does a task on given hosts."""
