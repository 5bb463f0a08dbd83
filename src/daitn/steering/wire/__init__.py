"""The wire format between forwarders: packets, and the summaries that steer them."""
