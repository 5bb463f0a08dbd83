"""The messaging layer."""
