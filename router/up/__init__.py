"""`flashgate up`: the edge node, the cloud stub and the gateway as children of one process."""
