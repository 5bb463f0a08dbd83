"""How recordings of real training are made: splits, routes through them, and the recorder."""
