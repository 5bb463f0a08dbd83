"""What forwarders send each other: packets, and the summaries by which they steer them."""
