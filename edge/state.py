"""What one sequence carries from token to token: KV caches, DeltaNet states, its length."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.config import ModelConfig

FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys (rotated) and values of one full-attention layer, f32[capacity, Hkv, D]; rows past the length are undefined.

    The arrays reserve address space only: the kernel hands out their pages, block by block, as rows are written.
    """

    keys: NDArray[np.float32]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class DeltaState:
    """State of one Gated DeltaNet layer; it cannot be rewound."""

    conv: NDArray[np.float32]  # [W-1, C], the last inputs of the convolution
    recurrent: NDArray[np.float32]  # [Hv, Dk, Dv]


LayerState = KVCache | DeltaState


class SequenceState:
    """The state of all layers for one sequence of at most `capacity` tokens."""

    def __init__(self, config: ModelConfig, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self.layers = tuple(_layer_state(config, kind, capacity) for kind in config.layer_types)

    def reset(self) -> None:
        """Begin a new sequence in the same memory."""
        self.length = 0
        for layer in self.layers:
            if isinstance(layer, DeltaState):
                layer.conv.fill(0)
                layer.recurrent.fill(0)


def state_bytes(config: ModelConfig, capacity: int) -> int:
    """Bytes of a SequenceState once all its `capacity` tokens are there."""
    kv_floats = 2 * capacity * config.num_kv_heads * config.head_dim
    conv_floats = (config.conv_width - 1) * conv_channels(config)
    delta_floats = conv_floats + config.num_value_heads * config.key_head_dim * config.value_head_dim
    num_full = config.layer_types.count("full_attention")
    return FLOAT32_BYTES * (num_full * kv_floats + (config.num_layers - num_full) * delta_floats)


def conv_channels(config: ModelConfig) -> int:
    """Channels of the DeltaNet convolution: queries, keys and values side by side."""
    return 2 * config.num_key_heads * config.key_head_dim + config.num_value_heads * config.value_head_dim


def _layer_state(config: ModelConfig, kind: str, capacity: int) -> LayerState:
    if kind == "full_attention":
        shape = (capacity, config.num_kv_heads, config.head_dim)
        return KVCache(np.empty(shape, np.float32), np.empty(shape, np.float32))
    return DeltaState(
        np.zeros((config.conv_width - 1, conv_channels(config)), np.float32),
        np.zeros((config.num_value_heads, config.key_head_dim, config.value_head_dim), np.float32),
    )
