"""Which model answers a query, where, and over which path: Q-FAM and QIRCE."""
