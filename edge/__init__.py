"""The edge node: a mixture-of-experts model whose experts stream from disk, behind gRPC."""
