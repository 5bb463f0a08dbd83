"""Files that survive a crash, and folders that one process owns."""
