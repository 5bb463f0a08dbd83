"""The role `verifier` (MPVU): private tests of models that visit, and of models that answer."""
