"""Which model answers a query, where, by which path: Q-FAM and QIRCE."""
