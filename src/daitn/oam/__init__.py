"""Operation, administration and maintenance: what people and programs see of a network, and steer.

It stands above the processes that it shows: it listens to them, and nothing below imports it.
"""
