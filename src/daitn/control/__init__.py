"""T-FAM, MTRCE and the job state machine: what a control centre decides, as pure functions."""
