"""Learning worlds: recorded training, simulated networks, comparison of route policies."""
