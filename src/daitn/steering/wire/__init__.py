"""What forwarders say to each other: packets, and the summaries by which they steer them."""
