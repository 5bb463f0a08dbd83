"""Simulated learning worlds: the ground on which route policies are compared."""
