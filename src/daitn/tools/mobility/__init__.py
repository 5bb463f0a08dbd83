"""Models on the move: kept by digest, fetched chunk by chunk from several holders."""
