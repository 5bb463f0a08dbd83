"""Propose, filter, score, pick: the pipeline that makes and explains every decision."""
