"""The model deployment optimiser, and the reconciliation of desired and actual deployments."""
