"""Filter, score, pick: the pipeline that makes and explains every decision."""
