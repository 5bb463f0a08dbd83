"""Value of data: how much each data set contributed to each objective of a model."""
