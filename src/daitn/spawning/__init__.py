"""Processes that start at once: forks of a template with everything already imported.

A *template* imports modules and starts no thread; the holder of a connection to it has it start
processes, which end with that connection where that is asked for. Many processes of one machine so
import their libraries once, and share the memory that these take.
"""
