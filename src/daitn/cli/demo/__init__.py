"""The healthcare scenario of the paper, on one machine, through real processes."""
