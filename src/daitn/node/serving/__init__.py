"""The role `facility`: models that answer at this site, and the door to them."""
