"""The control centre's durable state."""
