"""The servers that answer: the only package that opens connections to them.

Nothing outside reaches a backend but through `gate.EgressGate`, which asks the privacy floor for a permit.
"""
