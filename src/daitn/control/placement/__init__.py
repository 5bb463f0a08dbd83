"""The model deployment optimiser, and how what is wished becomes so."""
