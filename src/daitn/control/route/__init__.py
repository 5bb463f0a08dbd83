"""MTRCE, the model training route compute engine.

Read `question` (what is asked), `knowledge` (what a visit is expected to teach), `beliefs` (what
measurements say of that), `costs` (what a visit takes), `search` (the best sequences of visits)
and `engine` (the policy over them).
"""
