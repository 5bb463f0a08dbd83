"""Child processes of the node, in which recipes run, so that a crash costs only the child."""
