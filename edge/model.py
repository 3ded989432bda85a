"""The forward pass: token ids in, logits out, for one or many sequences at once.

Batch invariance: what a token yields is bit for bit the same in whatever chunks its sequence is computed and whichever
other sequences are in the pass.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edge import kernels
from edge.batch import Batch, Segment
from edge.config import ModelConfig
from edge.dense_stream import DenseStream
from edge.disk_rows import DiskRows
from edge.layers.decoder import DecoderLayer, StreamedLayer
from edge.layers.embedding import embed
from edge.layers.head import StreamedHead
from edge.layers.leeway import Leeway
from edge.layers.moe import ExpertSource, GuessTaker
from edge.layers.weights import Tensor, Weights
from edge.profiling import HEAD, UNTIMED, Watch

BeforeLayer = Callable[[], Collection[int]]


def nobody() -> Collection[int]:
    """No segment leaves the pass."""
    return ()


class Model:
    """The text model. Not thread-safe."""

    def __init__(
        self,
        config: ModelConfig,
        tensors: Mapping[str, Tensor],
        source: ExpertSource | None,
        watch: Watch = UNTIMED,
        taker: GuessTaker | None = None,
        *,
        stream: DenseStream | None = None,
        head: StreamedHead | None = None,
        embedding: DiskRows | None = None,
        leeway: Leeway | None = None,
    ) -> None:
        """`source` is None for a model without experts; `taker` is told what each next layer may need of it.

        `stream` holds the matrices that `tensors` lacks of some layers; `head` and `embedding` stand for missing ones.
        `leeway`: what may depart from the routers' choice, and counts it.
        """
        self._config = config
        self._in_head = watch.span(HEAD)
        weights = Weights(tensors)
        self._embeddings = embedding or weights.matrix("embed_tokens", config.vocab_size, config.hidden_size)
        self._norm = weights.vector("norm", config.hidden_size)
        name = "embed_tokens" if config.tie_embeddings else "lm_head"
        self._head = head or weights.matrix(name, config.vocab_size, config.hidden_size)

        def layer(index: int, matrices: Mapping[str, Tensor]) -> DecoderLayer:
            weights = Weights({**tensors, **matrices}).under(f"layers.{index}")
            return DecoderLayer(config, index, weights, source, watch, leeway)

        self._layers: tuple[DecoderLayer | StreamedLayer, ...] = tuple(
            StreamedLayer(stream, index, partial(layer, index))
            if stream and index in stream.parts
            else layer(index, {})
            for index in range(config.num_layers)
        )
        if taker:
            for this, following in pairwise(self._layers):  # the router of a layer that streams is not always there
                if isinstance(this, DecoderLayer) and isinstance(following, DecoderLayer):
                    this.guess_for(following, taker)

    def forward(self, segments: Sequence[Segment], before_layer: BeforeLayer = nobody) -> NDArray[np.float32]:
        """The last hidden states f32[sum of T, H], not yet normalised, of the next tokens of some sequences.

        `before_layer` may name segments, by their place in the list, to leave the pass: the result lacks their rows,
        and their states are then good only for `reset`. So are all states after an exception. Raises StorageError.
        """
        batch = self.batch(segments)
        self.run(batch, before_layer)
        for error in batch.errors.values():
            raise error
        return batch.x

    def batch(self, segments: Sequence[Segment]) -> Batch:
        """Their tokens' embeddings side by side, for `run`. Raises StorageError."""
        return Batch(self._config, segments, self.embed([id for part in segments for id in part.ids]))

    def embed(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """f32[len(ids), H]. Raises StorageError."""
        if isinstance(self._embeddings, DiskRows):
            return self._embeddings.read(ids)
        return embed(self._embeddings, ids)

    def run(self, batch: Batch, before_layer: BeforeLayer = nobody) -> None:
        """As `forward`; but a StorageError of an expert costs only the sequences that need it: see `batch.errors`.

        Raises StorageError for weights that every sequence needs.
        """
        for layer in self._layers:
            batch.drop(before_layer())
            if not batch.kept:
                return
            layer.forward(batch)
        batch.finish()

    def logits(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """f32[T, vocab] of hidden states f32[T, H] as `forward` returns them. Raises StorageError."""
        with self._in_head:
            return self.head(self.normalise(x))

    def normalise(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The last norm over hidden states f32[T, H] as `forward` returns them: what the head reads."""
        return kernels.rms_norm(x, self._norm, self._config.rms_norm_eps, self._config.norm_plus_one)

    def head(self, normal: NDArray[np.float32]) -> NDArray[np.float32]:
        """f32[T, vocab] of normalised hidden states f32[T, H]. Raises StorageError."""
        if isinstance(self._head, StreamedHead):
            return self._head.forward(normal)
        return kernels.matmul(normal, self._head)
