"""What the control centre must not forget."""
