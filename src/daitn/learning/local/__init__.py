"""An algorithm's changes to a site's steps, independent of the recipe: one file each.

`variates` (SCAFFOLD), `consolidation` (EWC) and `distillation` (LwF). FedProx needs no file: it is
a pull of the same strength on all weights. `steps` applies them in a visit.
"""
