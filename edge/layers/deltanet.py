"""Gated DeltaNet: linear attention whose state is corrected towards each new value and decays by a learned gate."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edge import kernels
from edge.batch import Block, Piece, joined
from edge.config import ModelConfig
from edge.layers.weights import Weights
from edge.state import conv_channels


class GatedDeltaNet:
    """One linear-attention token mixer."""

    def __init__(self, config: ModelConfig, layer: int, weights: Weights) -> None:
        self._layer = layer
        width, num_heads = config.hidden_size, config.num_value_heads
        value_width = num_heads * config.value_head_dim
        self._in_proj = kernels.Projections(
            weights.matrix("in_proj_qkv", conv_channels(config), width),
            weights.matrix("in_proj_z", value_width, width),
            weights.matrix("in_proj_b", num_heads, width),
            weights.matrix("in_proj_a", num_heads, width),
        )
        conv = weights.vector("conv1d", conv_channels(config), config.conv_width)
        self._delta = kernels.DeltaNet(
            np.ascontiguousarray(conv.T),  # [W, C]: neighbouring channels are computed side by side
            weights.vector("dt_bias", num_heads),
            -np.exp(weights.vector("A_log", num_heads)),
            weights.vector("norm", config.value_head_dim),
            config.rms_norm_eps,
            key_heads=config.num_key_heads,
            key_dim=config.key_head_dim,
        )
        self._out_proj = weights.matrix("out_proj", width, value_width)

    def forward(self, x: NDArray[np.float32], block: Block) -> NDArray[np.float32]:
        """Mix the f32[T, H] rows of `block`, each piece the next tokens of its sequence; the states move on."""
        projected = self._in_proj(x)
        y = joined([self._advance(pieces, projected) for pieces in up_to_captures(block.pieces)])
        return kernels.matmul(y, self._out_proj)

    def _advance(self, pieces: Sequence[Piece], projected: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        rows = slice(pieces[0].rows.start, pieces[-1].rows.stop)
        states = []
        for piece in pieces:
            state = piece.state.delta(self._layer)
            states.append((piece.rows.stop - piece.rows.start, state.conv, state.recurrent))
        qkv, z, b, a = (part[rows] for part in projected)
        y = self._delta(qkv, z, b, a, states)  # [T, Hv Dv]
        if pieces[-1].capture is not None:
            pieces[-1].capture.take(self._layer)
        return y


def up_to_captures(pieces: Sequence[Piece]) -> Iterator[Sequence[Piece]]:
    """The pieces in runs that can be computed together: a copy of a state is taken at the end of one.

    No sequence is twice in a run, for only a capture cuts its rows within a block.
    """
    begin = 0
    for end, piece in enumerate(pieces, 1):
        if piece.capture is not None or end == len(pieces):
            yield pieces[begin:end]
            begin = end
