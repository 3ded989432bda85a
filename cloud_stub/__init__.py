"""A stand-in cloud with failure scenarios; knows the wire contract and nothing of the router."""
