"""The DA-ITN control centre (DCC): a process around the pure core."""
