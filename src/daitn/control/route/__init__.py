"""MTRCE, the model training route compute engine.

Read `question` (the input), `value_model` (what a visit is believed to teach), `priors` and
`experience` (the initial beliefs), `posterior` (how measurements change them), `costs` (what a
visit takes), `task` (all of it as arrays), `rollout` (how a route would end), `obvious_plans` (the
baseline plans), `search` (better plans) and `engine` (the policy over them). `next_site` asks the
same for what a travelling model knows.
"""
