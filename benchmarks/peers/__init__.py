"""DA-ITN compared with Flower and NVIDIA FLARE: the same jobs on the same machine and networks."""
