"""Prefix reuse: what a prompt's beginning left in the model is kept, so that the next one that begins so goes on there.

`keys` names prefixes by keyed hashes, `points` says where a prompt is worth keeping, `snapshot` copies states, `cache`
holds the copies under a budget of memory, `directory`, `snapshot_file` and `writer` keep them on disk for those who ask
for it, `room` says which of them give way to others, and `store` is what the engine talks to.

A state cannot be rewound (edge.state.DeltaState), so it is taken up exactly where it was copied. What follows is to the
byte what it would be without.

Privacy. A snapshot is derived from a private prompt. Names are hashes under a secret key over the tenant and the
tokens: a tenant meets its own snapshots only, and cannot tell by time whether another one has sent some prompt. What it
can see is how busy the machine is: what it holds beyond an equal share of the budget leaves sooner while others send
many prompts, which says that there were some and about how long, never what they said. Nothing is written to disk
unless a directory is named; there, who can read the files can learn the prompts.

Experts, in contrast, are cached for all tenants alike: who times the reads of an own prompt can learn a little of which
experts others used lately.
"""
