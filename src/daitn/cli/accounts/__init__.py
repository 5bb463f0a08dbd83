"""`daitn account`: who used what, what it cost, and whether the ledger is valid."""
