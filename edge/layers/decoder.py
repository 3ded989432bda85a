"""One layer of the model: a token mixer, a feed-forward part, and the norms before them."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from edge import kernels
from edge.batch import Batch, Block
from edge.checkpoint.matrix import Matrix
from edge.config import ModelConfig
from edge.dense_stream import DenseStream
from edge.layers.attention import Attention
from edge.layers.deltanet import GatedDeltaNet
from edge.layers.leeway import Leeway
from edge.layers.mlp import GatedMlp
from edge.layers.moe import ExpertSource, GuessTaker, Meanwhile, SparseMoe
from edge.layers.weights import Weights
from edge.profiling import ATTENTION, DELTANET, MLP, Watch

# Of a long prompt so many rows, evenly spread, name nearly all experts that all rows need; more would take more memory.
GUESS_ROWS = 256


class DecoderLayer:
    """Token mixer and feed-forward part, each on a normalised input and added to the residual stream."""

    def __init__(
        self,
        config: ModelConfig,
        index: int,
        weights: Weights,
        source: ExpertSource | None,
        watch: Watch,
        leeway: Leeway | None = None,
    ) -> None:
        self._leeway = leeway
        self._eps, self._plus_one = config.rms_norm_eps, config.norm_plus_one
        self._input_norm = weights.vector("input_layernorm", config.hidden_size)
        self._post_norm = weights.vector("post_attention_layernorm", config.hidden_size)
        self._mixer: Attention | GatedDeltaNet
        if config.all_layer_types[index] == "full_attention":
            self._mixer = Attention(config, index, weights.under("self_attn"))
            self._mixing = watch.span(ATTENTION)
        else:
            self._mixer = GatedDeltaNet(config, index, weights.under("linear_attn"))
            self._mixing = watch.span(DELTANET)
        self._mlp: GatedMlp | None = None
        self._moe: SparseMoe | None = None
        if source is None:
            self._mlp = GatedMlp(config.hidden_size, config.mlp_size, weights.under("mlp"))
        else:
            self._moe = SparseMoe(config, index, weights.under("mlp"), source, watch, leeway)
        self._in_mlp = watch.span(MLP)
        self._next: DecoderLayer | None = None
        self._taker: GuessTaker | None = None

    def guess_for(self, following: "DecoderLayer", taker: GuessTaker) -> None:
        """From now on tell `taker` which experts the next layer may need."""
        self._next, self._taker = following, taker

    def forward(self, batch: Batch) -> None:
        """Move the residual stream of `batch` on, in place; sequences whose experts cannot be read leave it."""
        x = batch.x
        for block in batch.blocks:
            rows = x[block.rows]
            with self._mixing:
                rows += self._mixer.forward(self._normalise(rows, self._input_norm), block)
            if self._mlp is not None:
                with self._in_mlp:
                    rows += self._mlp.forward(self._normalise(rows, self._post_norm))
        if self._moe is not None:  # all rows at once, so that each expert is read once
            normal, is_scan = self._normalise(x, self._post_norm), batch.has_prompt
            guess = self._guess(x) if self._taker and self._taker.wants_guesses(is_scan=is_scan) else None
            y, failed = self._moe.forward(normal, is_scan=is_scan, meanwhile=guess)
            x += y
            if self._leeway:
                batch.count(self._leeway.last)
            batch.fail(failed)

    def remember(self, x: NDArray[np.float32], block: Block) -> None:
        """Add the rows of `block` to the caches as `forward` would, and no more. Of a layer of full attention."""
        if not isinstance(self._mixer, Attention):
            raise TypeError("a DeltaNet layer cannot remember without computing")
        with self._mixing:
            self._mixer.remember(self._normalise(x, self._input_norm), block)

    def _guess(self, x: NDArray[np.float32]) -> Meanwhile:
        """Take the residual stream before this layer's routed experts for what the next layer's router will see."""
        some = slice(None, None, -(-len(x) // GUESS_ROWS))

        def guess(shared: NDArray[np.float32]) -> None:
            if self._next and self._next._moe and self._taker:
                stream = x[some] + shared[some]
                self._next._moe.guess(self._next._normalise(stream, self._next._post_norm), self._taker)

        return guess

    def _normalise(self, x: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
        return kernels.rms_norm(x, weight, self._eps, self._plus_one)


class StreamedLayer:
    """A decoder layer whose matrices are in one of the stream's slots while it computes."""

    def __init__(self, stream: DenseStream, index: int, layer: Callable[[Mapping[str, Matrix]], DecoderLayer]) -> None:
        """`layer` makes it from matrices by name."""
        self._stream, self._index = stream, index
        self._in_slot = [layer(stream.matrices(index, slot)) for slot in range(stream.num_slots)]

    def forward(self, batch: Batch) -> None:
        """As DecoderLayer. Raises StorageError if the matrices cannot be read."""
        with self._stream.hold(self._index) as slot:
            self._in_slot[slot].forward(batch)
