"""Model mobility: models stored by digest, fetched chunk by chunk from several holders."""
