"""The model in training: transformers' own modules and parameters, run by a forward pass that a CPU does fast.

transformers' loops over experts and its triangular solves take most of a step on a CPU. What is here computes the
same from the same parameters; tests hold the two against each other.
"""
