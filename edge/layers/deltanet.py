"""Gated DeltaNet: linear attention whose state is corrected towards each new value and decays by a learned gate."""

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
        self._config = config
        self._layer = layer
        width, num_heads = config.hidden_size, config.num_value_heads
        value_width = num_heads * config.value_head_dim
        self._in_proj_qkv = weights.matrix("in_proj_qkv", conv_channels(config), width)
        self._in_proj_z = weights.matrix("in_proj_z", value_width, width)
        self._in_proj_b = weights.matrix("in_proj_b", num_heads, width)
        self._in_proj_a = weights.matrix("in_proj_a", num_heads, width)
        conv = weights.vector("conv1d", conv_channels(config), config.conv_width)
        self._conv = np.ascontiguousarray(conv.T)  # [W, C]: neighbouring channels are computed side by side
        self._dt_bias = weights.vector("dt_bias", num_heads)
        self._decay_rate = -np.exp(weights.vector("A_log", num_heads))
        self._norm = weights.vector("norm", config.value_head_dim)
        self._out_proj = weights.matrix("out_proj", width, value_width)

    def forward(self, x: NDArray[np.float32], block: Block) -> NDArray[np.float32]:
        """Mix the f32[T, H] rows of `block`, each piece the next tokens of its sequence; the states move on."""
        config = self._config
        projected = kernels.matmul(x, self._in_proj_qkv)
        a, b = kernels.matmul(x, self._in_proj_a), kernels.matmul(x, self._in_proj_b)  # [T, Hv] each
        log_decay, beta = kernels.delta_gates(a, b, self._dt_bias, self._decay_rate)
        advance = self._advance
        y = joined(
            [advance(piece, projected[piece.rows], log_decay[piece.rows], beta[piece.rows]) for piece in block.pieces]
        )
        gate = kernels.matmul(x, self._in_proj_z).reshape(-1, config.value_head_dim)
        y = kernels.gated_rms_norm(y.reshape(-1, config.value_head_dim), gate, self._norm, config.rms_norm_eps)
        return kernels.matmul(y.reshape(len(x), -1), self._out_proj)

    def _advance(
        self, piece: Piece, projected: NDArray[np.float32], log_decay: NDArray[np.float32], beta: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        state = piece.state.delta(self._layer)
        queries, keys, values = self._split(kernels.causal_conv(projected, self._conv, state.conv))
        y = kernels.gated_delta(queries, keys, values, log_decay, beta, state.recurrent)  # [T, Hv, Dv]
        if piece.capture is not None:
            piece.capture.take(self._layer)
        return y

    def _split(self, mixed: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        config = self._config
        width = config.num_key_heads * config.key_head_dim
        return (
            np.ascontiguousarray(mixed[:, :width]).reshape(-1, config.num_key_heads, config.key_head_dim),
            np.ascontiguousarray(mixed[:, width : 2 * width]).reshape(-1, config.num_key_heads, config.key_head_dim),
            np.ascontiguousarray(mixed[:, 2 * width :]).reshape(-1, config.num_value_heads, config.value_head_dim),
        )
