"""The role `forwarder`: AI objects as destinationless packets, between neighbours."""
