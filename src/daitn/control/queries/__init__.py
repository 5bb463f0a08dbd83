"""Which model answers a query, where, and by which path: Q-FAM and QIRCE."""
