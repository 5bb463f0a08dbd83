"""Merging models that sites trained separately: federated rounds and their defences.

A merge has two steps, each of them one file. A *reduction* makes one update of the sites' updates
(what they left, less what they were given): `mean`, `median`, `trimmed_mean`, `krum`, `bulyan`,
`ties`, `dare`. An *outer step* takes the reduced update for a gradient and moves the model by it:
`plain`, `momentum`, `adam`, `yogi`. FedAvg is `mean` and `plain`; FedAdam is `mean` and `adam`;
DiLoCo is `mean` and `momentum`. Tensors are read and
merged one after the other, so that no more than one model is in memory.
"""
