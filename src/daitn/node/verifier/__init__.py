"""The role `verifier` (MPVU): private tests of visiting models and of deployed ones."""
