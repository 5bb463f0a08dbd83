"""What carries messages between neighbours, over the link between the two and no other way."""
