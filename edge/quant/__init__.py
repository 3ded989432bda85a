"""Weights in fewer bits: numbers in, codes, scales and biases out. Where bytes lie: edge/checkpoint/layout.py."""
