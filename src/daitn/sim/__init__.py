"""The simulator: the decision code that runs live, in a world under a virtual clock."""
