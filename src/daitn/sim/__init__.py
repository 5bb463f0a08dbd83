"""The simulator: runs the live decision code in a world under a virtual clock."""
