"""DA-ITN: Data and Dynamics-Aware Inference and Training Networks."""

__version__ = "0.1.0"
