"""Full attention with grouped heads, normalised queries and keys, and in some families a gate on its output."""

import numpy as np
from numpy.typing import NDArray

from edge import kernels
from edge.batch import Block, Piece, joined
from edge.config import ModelConfig
from edge.layers.weights import Weights


class Attention:
    """One full-attention token mixer."""

    def __init__(self, config: ModelConfig, layer: int, weights: Weights) -> None:
        self._config = config
        self._layer = layer
        width, head_dim = config.hidden_size, config.head_dim
        query_width, kv_width = config.num_attention_heads * head_dim, config.num_kv_heads * head_dim
        self._parts = 2 if config.attention_gate else 1  # of a head in q_proj: query, gate
        q_proj = weights.matrix("q_proj", self._parts * query_width, width)
        k_proj, v_proj = weights.matrix("k_proj", kv_width, width), weights.matrix("v_proj", kv_width, width)
        self._qkv_proj = kernels.Projections(q_proj, k_proj, v_proj)
        self._kv_proj = kernels.Projections(k_proj, v_proj)
        self._o_proj = weights.matrix("o_proj", width, query_width)
        self._q_norm = weights.vector("q_norm", head_dim)
        self._k_norm = weights.vector("k_norm", head_dim)

    def forward(self, x: NDArray[np.float32], block: Block) -> NDArray[np.float32]:
        """Mix the f32[T, H] rows of `block`; their keys and values are added to the caches of their sequences."""
        config, num_tokens = self._config, len(x)
        shape = (num_tokens, config.num_attention_heads, self._parts, config.head_dim)
        query_gate, keys, values = self._qkv_proj(x)
        query_gate = query_gate.reshape(shape)
        queries = self._normalise(query_gate[:, :, 0], self._q_norm)
        block.rotation.apply(queries)
        self._store(keys, values, block)
        mixed = joined([self._attend(piece, queries[piece.rows]) for piece in block.pieces])
        if config.attention_gate:
            mixed = kernels.sigmoid_mul(np.ascontiguousarray(query_gate[:, :, 1]), mixed)
        return kernels.matmul(mixed.reshape(num_tokens, -1), self._o_proj)

    def remember(self, x: NDArray[np.float32], block: Block) -> None:
        """As `forward` where nobody asks for what it mixes: keys and values are added, to the same bit."""
        keys, values = self._kv_proj(x)
        self._store(keys, values, block)

    def _store(self, keys: NDArray[np.float32], values: NDArray[np.float32], block: Block) -> None:
        keys = self._normalise(keys, self._k_norm)
        block.rotation.apply(keys)
        values = values.reshape(keys.shape)
        for piece in block.pieces:
            cache, rows = piece.state.kv_cache(self._layer), piece.rows
            end = piece.start + rows.stop - rows.start
            cache.keys[piece.start : end] = keys[rows]
            cache.values[piece.start : end] = values[rows]

    def _attend(self, piece: Piece, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        cache = piece.state.kv_cache(self._layer)
        return kernels.attention(queries, cache.keys, cache.values, piece.start)  # [T, Hq, D]

    def _normalise(self, x: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
        heads = np.ascontiguousarray(x).reshape(-1, self._config.head_dim)
        normal = kernels.rms_norm(heads, weight, self._config.rms_norm_eps, self._config.norm_plus_one)
        return normal.reshape(len(x), -1, self._config.head_dim)
