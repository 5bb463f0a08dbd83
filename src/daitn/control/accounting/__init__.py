"""Accounts: from facts to entries of the ledger, and the ledger's invariants."""
