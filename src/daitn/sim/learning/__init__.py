"""Simulated worlds in which models learn as real ones were seen to: what judges route policies."""
