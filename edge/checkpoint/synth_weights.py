"""The weights of a synthetic pack, tensor by tensor, in the pack's own bytes."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.contents import DenseEntry
from edge.checkpoint.layout import ExpertLayout
from edge.checkpoint.matrix import Bytes, expert_matrices
from edge.checkpoint.names import MTP_PREFIX
from edge.checkpoint.random_signal import (
    KEY_CONV_STD,
    NUM_CONSTANT,
    QUERY_WEIGHT,
    VALUE_CONV_STD,
    LayerSignal,
    constant_of,
    expert_down_std,
    layer_signals,
    router_rows,
)
from edge.checkpoint.random_weights import RandomMatrix, float_bytes
from edge.checkpoint.routing_skew import frequencies, mean_square_share, offsets
from edge.config import ModelConfig

EXPERT_STREAM, DENSE_STREAM, ROUTING_STREAM = range(3)  # seeds of different things differ in this


class SynthWeights:
    """Random weights of a model; each piece follows from the seed and its own place alone."""

    def __init__(self, config: ModelConfig, seed: int, *, is_skewed: bool) -> None:
        self._config, self._seed, self._is_skewed = config, seed, is_skewed

    def fill_expert(self, block: Bytes, layout: ExpertLayout, file: int, expert: int) -> None:
        """Make one expert. The block's padding must be zero already."""
        for index, matrix in enumerate(expert_matrices(layout, block)):
            seed = (self._seed, EXPERT_STREAM, file, expert, index)
            random = RandomMatrix(matrix.layout, _read_std(matrix.layout.cols), seed)
            if matrix.layout is layout.down:
                random = RandomMatrix(matrix.layout, self._expert_down_std, seed, NUM_CONSTANT)
            end = 0
            for piece in random.pieces():
                start, end = end, end + len(piece)
                matrix.data[start:end] = piece

    def dense(self, index: int, entry: DenseEntry) -> Iterator[Bytes]:
        """The bytes of the dense tensor number `index`, in order."""
        seed = (self._seed, DENSE_STREAM, index)
        if entry.layout is None:
            yield self._vector(entry.name, entry.shape, np.random.default_rng(seed)).reshape(-1).view(np.uint8)
        elif entry.name == "embed_tokens":
            yield from RandomMatrix(entry.layout, 1, seed, constant=constant_of(self._config)).pieces()
        elif entry.name.endswith(".mlp.gate"):
            layer = self._layer(entry.name)
            variance, rng = self._signals[layer].router_variance, np.random.default_rng(seed)
            yield float_bytes(router_rows(self._config, self._offsets_of(layer), variance, rng), entry.layout)
        elif std := self._written_std(entry.name):
            yield from RandomMatrix(entry.layout, std, seed, NUM_CONSTANT).pieces()
        else:
            yield from RandomMatrix(entry.layout, _read_std(entry.layout.cols), seed).pieces()

    def _vector(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
        if name.endswith(".conv1d"):  # channels of queries and keys, then of values
            weights = rng.standard_normal(shape, np.float32) * np.float32(VALUE_CONV_STD)
            weights[: 2 * self._config.num_key_heads * self._config.key_head_dim] *= KEY_CONV_STD / VALUE_CONV_STD
            return weights
        if name.endswith(".A_log"):  # decay rates of 0.01 to 16, as transformers initialises them
            return np.log(rng.uniform(0.01, 16, shape)).astype(np.float32)
        if name.endswith(".dt_bias"):
            return 1 + rng.standard_normal(shape, np.float32) / np.float32(10)
        if name.endswith(".linear_attn.norm"):  # a plain factor
            return np.ones(shape, np.float32)
        factor = 1 + (QUERY_WEIGHT if name.endswith(".q_norm") else 0)
        return np.full(shape, factor - self._config.norm_plus_one, np.float32)

    def _written_std(self, name: str) -> float | None:
        """Of a matrix that writes to the hidden state; None for all others."""
        if name.endswith((".o_proj", ".out_proj")):
            return self._signals[self._layer(name)].mixer_std
        if name.endswith((".shared_expert.down_proj", ".mlp.down_proj")):
            return self._signals[self._layer(name)].mlp_down_std
        return None

    def _layer(self, name: str) -> int:
        """To which the tensor belongs; the MTP layer follows the last one."""
        return self._config.num_layers if name.startswith(MTP_PREFIX) else int(name.split(".")[1])

    @cached_property
    def _signals(self) -> tuple[LayerSignal, ...]:
        return tuple(layer_signals(self._config))

    @cached_property
    def _offsets(self) -> NDArray[np.float64]:
        """Hottest expert first: [E]."""
        num_experts, top_k = self._config.num_experts, self._config.top_k
        if not self._is_skewed:
            return np.zeros(num_experts)
        return offsets(frequencies(num_experts, top_k), top_k, self._seed)

    def _offsets_of(self, layer: int) -> NDArray[np.float64]:
        """By expert; each layer has its own hottest."""
        rng = np.random.default_rng((self._seed, ROUTING_STREAM, layer))
        return self._offsets[rng.permutation(len(self._offsets))]

    @cached_property
    def _expert_down_std(self) -> float:
        return expert_down_std(self._config, mean_square_share(self._offsets, self._config.top_k, self._seed))


def _read_std(cols: int) -> float:
    """Of a matrix that reads a normalised state: its output has variance 1."""
    return float(cols**-0.5)
