"""Quantisation by what a model does with some text: the text, its way through the layers, the errors that remain."""
