"""The multi-token-prediction layer: from what the model made of token t, and token t + 1, it foretells token t + 2.

fc([norm(embed(token t + 1)); norm(hidden t)]), one decoder layer of full attention at position t, a norm, and the
model's own head. `hidden` is the state after the model's last norm, and in a chain of guesses this layer's own output.
Source: the tensors of the released checkpoints; vLLM's qwen3_next_mtp.py.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge import kernels
from edge.batch import Batch, Block
from edge.config import ModelConfig
from edge.layers.decoder import DecoderLayer
from edge.layers.moe import ExpertSource
from edge.layers.weights import Tensor, Weights
from edge.profiling import UNTIMED, Watch


class MtpLayer:
    """Its KV cache is part of a sequence's state, behind those of the model's layers: row t is of token t."""

    def __init__(
        self, config: ModelConfig, tensors: Mapping[str, Tensor], source: ExpertSource | None, watch: Watch = UNTIMED
    ) -> None:
        """Raises PackError for tensors that are missing or do not fit `config`."""
        self._eps, self._plus_one = config.rms_norm_eps, config.norm_plus_one
        width, weights = config.hidden_size, Weights(tensors).under("mtp")
        self._embedding_norm = weights.vector("pre_fc_norm_embedding", width)
        self._hidden_norm = weights.vector("pre_fc_norm_hidden", width)
        self._fc = weights.matrix("fc", width, 2 * width)
        self._layer = DecoderLayer(config, config.num_layers, weights.under("layers.0"), source, watch)
        self._norm = weights.vector("norm", width)

    def join(self, embedded: NDArray[np.float32], hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """The layer's input f32[T, H] from embeddings of the tokens t + 1 and hidden states of t, f32[T, H] both."""
        parts = (self._normalise(embedded, self._embedding_norm), self._normalise(hidden, self._hidden_norm))
        return kernels.matmul(np.concatenate(parts, axis=1), self._fc)

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """What the head reads, f32[N, H], of the rows of `batch`, which are as `join` makes them.

        Sequences whose experts cannot be read leave the batch. Keys and values are added to the caches.
        """
        self._layer.forward(batch)
        return self._normalise(batch.x, self._norm)

    def remember(self, x: NDArray[np.float32], block: Block) -> None:
        """Only add keys and values of rows as `join` makes them: all that later rows will ask of them."""
        self._layer.remember(x, block)

    def _normalise(self, x: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
        return kernels.rms_norm(x, weight, self._eps, self._plus_one)
