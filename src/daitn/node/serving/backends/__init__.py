"""What answers behind a facility: models of the network's own, and servers of OpenAI's API."""
