"""MTRCE, the model training route compute engine.

Read `question` (what is asked), `value_model` (what a visit is believed to teach), `priors` and
`experience` (what is believed at first), `posterior` (what measurements say of that), `costs` (what
a visit takes), `task` (all of it as arrays), `rollout` (how a route would end), `obvious` (what
anybody would do), `search` (what is better) and `engine` (the policy over them). `next_site` asks
the same of what a travelling model knows.
"""
