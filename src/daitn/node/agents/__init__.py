"""Models that travel by themselves: what a site does for those that come by, and their homes."""
