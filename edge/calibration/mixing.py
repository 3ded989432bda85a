"""Token mixers without their output projection: what that projection is given is what calibrating it needs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge.batch import Batch, Segment
from edge.checkpoint.layout import Format, MatrixLayout
from edge.checkpoint.matrix import Matrix, empty_matrix, float_rows
from edge.config import FULL_ATTENTION, ModelConfig
from edge.layers.attention import Attention
from edge.layers.deltanet import GatedDeltaNet
from edge.layers.weights import Tensor, Weights
from edge.state import SequenceState

Floats = NDArray[np.float32]

ATTENTION_INPUTS = ("q_proj", "k_proj", "v_proj")
DELTANET_INPUTS = ("in_proj_qkv", "in_proj_z")
BATCH_TOKENS = 1024  # of short sequences that are mixed together
BF16_ONE = 0x3F80  # the bits of 1


def mixer_names(kind: str) -> tuple[str, tuple[str, ...], str]:
    """Of a kind of layer: where its mixer's tensors are, those that are given its input, and the last one."""
    if kind == FULL_ATTENTION:
        return "self_attn", ATTENTION_INPUTS, "o_proj"
    return "linear_attn", DELTANET_INPUTS, "out_proj"


class OpenMixer:
    """The token mixer of a layer of `kind` up to, but not including, its output projection.

    `tensors`: the layer's by name without its prefix; those of the output projection are not needed.
    """

    def __init__(self, config: ModelConfig, kind: str, tensors: Mapping[str, Tensor]) -> None:
        self._config = replace(config.without_mtp(), num_layers=1, layer_types=(kind,))  # one state, not all layers'
        place, _, last = mixer_names(kind)
        layer = Attention if kind == FULL_ATTENTION else GatedDeltaNet
        self._mixer = layer(self._config, 0, _OpenWeights(tensors, f"{place}.", last))

    def mix(self, inputs: Floats, sequences: Sequence[Sequence[int]]) -> Floats:
        """f32 [T, H], normalised, to f32 [T, width of the mixer]. `sequences` lie one after the other in T."""
        segments = [Segment(ids, SequenceState(self._config, len(ids))) for ids in sequences]
        batch = Batch(self._config, segments, inputs)
        return np.concatenate([self._mixer.forward(inputs[block.rows], block) for block in batch.blocks])


def batches(sequences: Sequence[Sequence[int]]) -> Iterator[tuple[slice, Sequence[Sequence[int]]]]:
    """All sequences, some at a time, with their rows."""
    begin = first = 0
    for index, _ in enumerate(sequences, 1):
        rows = sum(map(len, sequences[first:index]))
        if rows >= BATCH_TOKENS or index == len(sequences):
            yield slice(begin, begin + rows), sequences[first:index]
            begin, first = begin + rows, index


class _OpenWeights(Weights):
    """With the identity for one matrix: a layer that multiplies with it hands out what it would have multiplied."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, open_end: str) -> None:
        super().__init__(tensors, prefix)
        self._open_end = open_end

    def matrix(self, name: str, rows: int, cols: int) -> Matrix:
        return identity(cols) if name == self._open_end else super().matrix(name, rows, cols)


def identity(size: int) -> Matrix:
    """In bf16, which holds 0 and 1 exactly."""
    matrix = empty_matrix(MatrixLayout(Format.BF16, size, size))
    np.fill_diagonal(float_rows(matrix).view(np.uint16), BF16_ONE)
    return matrix
