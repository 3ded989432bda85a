"""What one sequence carries from token to token: KV caches, DeltaNet states, its length; and the places for such."""

import mmap
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.config import ModelConfig
from edge.memory import mapped_bytes

FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys (rotated) and values of one full-attention layer, f32[capacity, Hkv, D]; rows past the length are undefined.

    The arrays reserve address space only: the kernel hands out their pages as rows are written.
    """

    keys: NDArray[np.float32]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class DeltaState:
    """State of one Gated DeltaNet layer; it cannot be rewound."""

    conv: NDArray[np.float32]  # [W-1, C], the last inputs of the convolution
    recurrent: NDArray[np.float32]  # [Hv, Dk, Dv]


@dataclass(frozen=True, slots=True)
class LastHidden:
    """What the last layer and its norm made of the last token, f32[H]; the MTP layer takes it with the token after."""

    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Behind:
    """Neighbouring tokens that the MTP layer has not seen yet, and for each the hidden state before it, f32[n, H]."""

    at: int  # position of the first of the hidden states
    ids: list[int]
    hidden: NDArray[np.float32]


MOST_BEHIND = 32  # tokens of a sequence that may wait to be shown to the MTP layer together: alone each costs as much

LayerState = KVCache | DeltaState | LastHidden


class SequenceState:
    """The state of all layers for one sequence of at most `capacity` tokens.

    Behind those of the layers come, where there is an MTP layer, its KV cache and what it takes next. Row i of that
    cache is of token i and the token after it: the row of the last token is not defined yet.
    """

    def __init__(self, config: ModelConfig, capacity: int, num_spares: int = 0) -> None:
        """`num_spares`: so many earlier states of the DeltaNet layers can be kept beside (edge/speculation)."""
        self.capacity = capacity
        self.length = 0
        self._pages: list[mmap.mmap] = []
        self.layers = [self._new_layer(config, kind) for kind in config.all_layer_types]
        if config.num_mtp_layers:
            self.layers.append(LastHidden(np.zeros(config.hidden_size, np.float32)))
        linear = [index for index, layer in enumerate(self.layers) if isinstance(layer, DeltaState)]
        self.behind: list[Behind] = []
        self.spares = tuple({index: _new_delta(config) for index in linear} for _ in range(num_spares))

    def _new_layer(self, config: ModelConfig, kind: str) -> LayerState:
        if kind == "full_attention":
            shape = (self.capacity, config.num_kv_heads, config.head_dim)
            return KVCache(self._reserve(shape), self._reserve(shape))
        return _new_delta(config)

    def _reserve(self, shape: tuple[int, int, int]) -> NDArray[np.float32]:
        size = FLOAT32_BYTES * shape[0] * shape[1] * shape[2]
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # A huge page would be handed out whole for the first row of each of many caches: memory that nobody planned.
        with suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_NOHUGEPAGE)
        self._pages.append(pages)
        return np.frombuffer(pages, np.float32).reshape(shape)

    def kv_cache(self, layer: int) -> KVCache:
        """The state of a full-attention layer; TypeError if it is of another kind."""
        state = self.layers[layer]
        if not isinstance(state, KVCache):
            raise TypeError(f"layer {layer} keeps a {type(state).__name__}, not a KVCache")
        return state

    def delta(self, layer: int) -> DeltaState:
        """The state of a DeltaNet layer; TypeError if it is of another kind."""
        state = self.layers[layer]
        if not isinstance(state, DeltaState):
            raise TypeError(f"layer {layer} keeps a {type(state).__name__}, not a DeltaState")
        return state

    def last_hidden(self) -> NDArray[np.float32]:
        """f32[H], of the last token; TypeError without an MTP layer."""
        state = self.layers[-1]
        if not isinstance(state, LastHidden):
            raise TypeError("there is no MTP layer")
        return state.vector

    def contents(self, length: int) -> list[tuple[NDArray[np.float32], ...]]:
        """By layer, the arrays that hold what the first `length` tokens left: the first rows of the KV caches, and the
        DeltaNet states, which are those after as many tokens as have gone through that layer."""
        return [_contents(layer, length) for layer in self.layers]

    def reset(self) -> None:
        """Begin a new sequence in the same memory."""
        self.length = 0
        self.behind.clear()
        for layer in self.layers:
            if isinstance(layer, DeltaState):
                layer.conv.fill(0)
                layer.recurrent.fill(0)

    def release(self) -> None:
        """Hand the pages of the KV caches back: other sequences may need as much before this place is used again."""
        self.length = 0
        self.behind.clear()
        for pages in self._pages:
            pages.madvise(mmap.MADV_DONTNEED)


def _new_delta(config: ModelConfig) -> DeltaState:
    return DeltaState(
        np.zeros((config.conv_width - 1, conv_channels(config)), np.float32),
        _huge((config.num_value_heads, config.key_head_dim, config.value_head_dim)),
    )


def _contents(layer: LayerState, length: int) -> tuple[NDArray[np.float32], ...]:
    match layer:
        case KVCache():
            return layer.keys[:length], layer.values[:length]
        case DeltaState():
            return layer.conv, layer.recurrent
        case LastHidden():
            return (layer.vector,)


def _huge(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Zeros in huge pages: each token reads and writes all of a state, 4 MB of it at the 397B's size."""
    return mapped_bytes(FLOAT32_BYTES * shape[0] * shape[1] * shape[2]).view(np.float32).reshape(shape)


class StatePool:
    """The places for running sequences, made once: a DeltaNet state keeps its memory, KV pages come and go."""

    def __init__(self, config: ModelConfig, num_places: int, capacity: int, num_spares: int = 0) -> None:
        self._free = [SequenceState(config, capacity, num_spares) for _ in range(num_places)]

    def take(self) -> SequenceState:
        """A place for a new sequence; IndexError if all are taken."""
        state = self._free.pop()
        state.reset()
        return state

    def give_back(self, state: SequenceState) -> None:
        """The sequence in `state` has ended."""
        state.release()
        self._free.append(state)


def kv_token_bytes(config: ModelConfig) -> int:
    """Bytes of keys and values that one token adds."""
    return FLOAT32_BYTES * config.all_layer_types.count("full_attention") * 2 * config.num_kv_heads * config.head_dim


def delta_bytes(config: ModelConfig) -> int:
    """Bytes of a sequence's DeltaNet states, whatever its length."""
    conv_floats = (config.conv_width - 1) * conv_channels(config)
    floats = conv_floats + config.num_value_heads * config.key_head_dim * config.value_head_dim
    return FLOAT32_BYTES * (config.num_layers - config.layer_types.count("full_attention")) * floats


def fixed_bytes(config: ModelConfig) -> int:
    """Bytes of a sequence's state, whatever its length: all but keys and values."""
    return delta_bytes(config) + FLOAT32_BYTES * config.hidden_size * config.num_mtp_layers


def conv_channels(config: ModelConfig) -> int:
    """Channels of the DeltaNet convolution: queries, keys and values side by side."""
    return 2 * config.num_key_heads * config.key_head_dim + config.num_value_heads * config.value_head_dim
