"""Speculative decoding that changes no answer: guessed tokens are computed together with the last one and checked.

A pass computes a sequence's last token and, behind it, tokens that a drafter guessed. The kernels give each row the
very bits that it would have alone, so the request's own sampler draws from the true logits of every row whose
predecessors were guessed right; a guess counts if it is the token drawn. Greedy or sampled, the answer is the one
without guesses, bit for bit. What was computed of wrong guesses is taken back: KV caches are shortened, and DeltaNet
states, which cannot be, were copied on the way (savepoint.py).
"""
