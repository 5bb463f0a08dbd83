"""The training job: its state machine, its commands, and its question to MTRCE."""
