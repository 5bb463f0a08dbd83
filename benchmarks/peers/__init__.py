"""DA-ITN beside Flower and NVIDIA FLARE: the same jobs on the same machine and networks."""
