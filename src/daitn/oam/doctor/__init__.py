"""Examines what a network needs, and says what to do where something is wrong."""
