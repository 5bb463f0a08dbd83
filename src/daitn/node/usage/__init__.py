"""Usage counts of a gateway or facility, and their reports to the control centre."""
