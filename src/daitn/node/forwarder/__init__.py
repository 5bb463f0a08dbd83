"""The role `forwarder`: passes AI objects between neighbours as destinationless packets."""
