"""The gateway's use case and the two protocols that carry it."""
