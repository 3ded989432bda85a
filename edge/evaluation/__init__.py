"""Quality, measured: questions that a program judges, and what a variant of a model loses against a reference."""
