"""The decisions of a control centre (T-FAM, MTRCE, job state machine, ...) as pure functions."""
