"""Ways to steer queries through one simulated network, side by side: AATS and others."""
