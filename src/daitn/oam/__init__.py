"""Operations, administration and management: how people and programs see and control a network.

It stands above the processes that it shows: it listens to them, and nothing below imports it.
"""
