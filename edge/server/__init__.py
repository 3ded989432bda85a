"""The edge node as a server: the engine in a process of its own, a queue before it, gRPC and metrics in front."""
