"""Carries messages between neighbours, only over the link between the two."""
