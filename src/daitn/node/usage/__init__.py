"""What a gateway or facility counts, and states to the control centre."""
