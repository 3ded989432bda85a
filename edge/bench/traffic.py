"""Which bytes a forward pass has to move: the roofs and the prediction are made of them."""

from collections import Counter
from dataclasses import dataclass

from edge.checkpoint.contents import Contents
from edge.profiling import ATTENTION, DELTANET, HEAD, MLP, OTHER, ROUTER, SHARED_EXPERT

EMBEDDING, LM_HEAD = "embed_tokens", "lm_head"
# A piece of a dense tensor's name says what kind of work reads it; the first that is found decides.
_KINDS = {
    "self_attn.": ATTENTION,
    "linear_attn.": DELTANET,
    "mlp.shared_expert": SHARED_EXPERT,
    "mlp.gate.": ROUTER,
    "mlp.": MLP,
    LM_HEAD: HEAD,
}


@dataclass(frozen=True, slots=True)
class Weights:
    """What one forward pass reads, in bytes: the dense weights once whatever the number of tokens, experts by look-up.

    A pass looks each expert up once per layer, for all the tokens that chose it.
    """

    dense: dict[str, int]  # by kind of work, all layers together
    expert: int  # one block

    def pass_bytes(self, lookups: float, *, with_head: bool = True) -> float:
        """A pass that looks up so many experts in all its layers together."""
        dense = sum(self.dense.values()) - (0 if with_head else self.dense[HEAD])
        return dense + lookups * self.expert


def weights(contents: Contents) -> Weights:
    """The sizes of a pack. Of an embedding that is not also the head a pass reads a few rows only: not counted."""
    dense = Counter(dict.fromkeys((*_KINDS.values(), OTHER), 0))
    for entry in contents.dense:
        if entry.name == EMBEDDING:
            dense[HEAD] += entry.nbytes if contents.config.tie_embeddings else 0
        else:
            dense[kind_of(entry.name)] += entry.nbytes
    return Weights(dict(dense), contents.block_bytes)


def kind_of(name: str) -> str:
    """The kind of work that reads the dense tensor `name`."""
    return next((kind for piece, kind in _KINDS.items() if piece in f"{name}."), OTHER)
