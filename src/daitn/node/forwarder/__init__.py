"""The role `forwarder`: forwards AI objects between neighbours as destinationless packets."""
