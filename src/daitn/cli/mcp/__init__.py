"""`daitn mcp`: the network for assistants, by the Model Context Protocol."""
