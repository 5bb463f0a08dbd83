"""The training job: one state machine, its commands, and the question it puts to MTRCE."""
