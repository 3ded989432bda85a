"""Routed experts: which are in RAM, and how the others get there."""
