"""Accounts: from facts to entries of the ledger, and what must hold of them."""
