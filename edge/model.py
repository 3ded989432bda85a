"""The forward pass: token ids in, logits out, one sequence at a time.

Batch invariance: what a token yields is bit for bit the same in whatever chunks its sequence is computed.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edge import kernels
from edge.config import ModelConfig
from edge.layers.attention import Attention
from edge.layers.deltanet import GatedDeltaNet
from edge.layers.embedding import embed
from edge.layers.moe import ExpertSource, SparseMoe
from edge.layers.rotary import Rotation
from edge.layers.weights import Tensor, Weights
from edge.state import DeltaState, KVCache, LayerState, SequenceState


class DecoderLayer:
    """Token mixer and mixture of experts, each on a normalised input and added to the residual stream."""

    def __init__(self, config: ModelConfig, index: int, weights: Weights, source: ExpertSource) -> None:
        self._eps = config.rms_norm_eps
        self._input_norm = weights.vector("input_layernorm", config.hidden_size)
        self._post_norm = weights.vector("post_attention_layernorm", config.hidden_size)
        self._mixer: Attention | GatedDeltaNet
        if config.layer_types[index] == "full_attention":
            self._mixer = Attention(config, weights.under("self_attn"))
        else:
            self._mixer = GatedDeltaNet(config, weights.under("linear_attn"))
        self._moe = SparseMoe(config, index, weights.under("mlp"), source)

    def forward(self, x: NDArray[np.float32], state: LayerState, start: int, rotation: Rotation) -> None:
        """Move the residual stream f32[T, H] on, in place."""
        x += self._mix(kernels.rms_norm(x, self._input_norm, self._eps, plus_one=True), state, start, rotation)
        x += self._moe.forward(kernels.rms_norm(x, self._post_norm, self._eps, plus_one=True))

    def _mix(self, x: NDArray[np.float32], state: LayerState, start: int, rotation: Rotation) -> NDArray[np.float32]:
        match self._mixer, state:
            case Attention() as attention, KVCache() as cache:
                return attention.forward(x, cache, start, rotation)
            case GatedDeltaNet() as deltanet, DeltaState() as delta_state:
                return deltanet.forward(x, delta_state)
        raise TypeError(f"a {type(state).__name__} is no state of a {type(self._mixer).__name__} layer")


class Model:
    """The text model. Not thread-safe."""

    def __init__(self, config: ModelConfig, tensors: Mapping[str, Tensor], source: ExpertSource) -> None:
        self._config = config
        weights = Weights(tensors)
        self._embeddings = weights.matrix("embed_tokens", config.vocab_size, config.hidden_size)
        self._norm = weights.vector("norm", config.hidden_size)
        self._head = self._embeddings
        if not config.tie_embeddings:
            self._head = weights.matrix("lm_head", config.vocab_size, config.hidden_size)
        self._layers = tuple(
            DecoderLayer(config, index, weights.under(f"layers.{index}"), source) for index in range(config.num_layers)
        )

    def forward(
        self, ids: Sequence[int], state: SequenceState, before_layer: Callable[[], None] = lambda: None
    ) -> NDArray[np.float32]:
        """The next tokens of `state`'s sequence to their last hidden states f32[T, H], not yet normalised.

        `before_layer` may raise to stop; `state` is then good only for `reset`. The same after a StorageError.
        """
        start = state.length
        rotation = Rotation.at(self._config, start, len(ids))
        x = embed(self._embeddings, ids)
        for layer, layer_state in zip(self._layers, state.layers, strict=True):
            before_layer()
            layer.forward(x, layer_state, start, rotation)
        state.length += len(ids)
        return x

    def logits(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """f32[T, vocab] of hidden states f32[T, H] as `forward` returns them."""
        normal = kernels.rms_norm(x, self._norm, self._config.rms_norm_eps, plus_one=True)
        return kernels.matmul(normal, self._head)
