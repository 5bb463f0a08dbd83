"""Value of data: who moved which objective of a model by how much."""
