"""Every native kernel as its formula in plain numpy: what `edge/kernels.py` is tested against, and nothing else.

Shapes and arguments are those of `edge/kernels.py`. Slow, in float64 inside: the difference is the kernel's.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.layout import RUN_COLUMNS, ExpertLayout
from edge.checkpoint.matrix import Matrix, dequantize, expert_matrices
from edge.kernels import Routing

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Indices = NDArray[np.int32]
Bytes = NDArray[np.uint8]

NORM_EPS = 1e-6  # of the L2 norm in gated_delta, as in transformers
DIGITS_TOP = np.float32(127 * 256)  # two signed digits of base 256 (edge/native/matrix.h)
LEAST_ACTIVATION = 1e-30  # a block that reaches less counts as zero


def sigmoid(x: Array | Floats) -> Array:
    """1 / (1 + exp(-x)), written so that neither sign overflows."""
    wide = np.asarray(x, np.float64)
    small = np.exp(-np.abs(wide))
    return np.where(wide >= 0, 1.0, small) / (1.0 + small)


def silu(x: Array | Floats) -> Array:
    """x * sigmoid(x)."""
    return np.asarray(x, np.float64) * sigmoid(x)


def quantize_activations(x: Floats) -> tuple[NDArray[np.int32], Floats]:
    """Integers q of magnitude at most DIGITS_TOP and scales such that x is about scale * q, per token and block.

    Shapes: x [T, C], q [T, B, 64], scales [T, B]; the last block is filled with zeros. These are the kernels' own
    numbers, to the bit, for finite x.
    """
    num_tokens, num_columns = x.shape
    num_blocks = -(-num_columns // RUN_COLUMNS)
    blocks = np.zeros((num_tokens, num_blocks * RUN_COLUMNS), np.float32)
    blocks[:, :num_columns] = x
    blocks = blocks.reshape(num_tokens, num_blocks, RUN_COLUMNS)
    top = np.abs(blocks).max(axis=2)
    top[top < LEAST_ACTIVATION] = 0
    inverse = np.divide(DIGITS_TOP, top, out=np.zeros_like(top), where=top > 0)
    q = np.rint(blocks * inverse[:, :, None]).astype(np.int32)
    return q, top / DIGITS_TOP


def rounded_activations(x: Floats | Array) -> Array:
    """The numbers that stand for x where it is multiplied with a quantised matrix. Shapes: x and result [T, C]."""
    q, scales = quantize_activations(np.asarray(x, np.float32))
    num_columns = q.shape[1] * q.shape[2]
    return (q * scales.astype(np.float64)[:, :, None]).reshape(len(q), num_columns)[:, : x.shape[1]]


def matmul(x: Floats | Array, w: Matrix) -> Array:
    """x Wᵀ, with x rounded first where w is quantised."""
    taken = rounded_activations(x) if w.layout.format.is_quantized else np.asarray(x, np.float64)
    return taken @ dequantize(w).astype(np.float64).T


def gated_mlp(x: Floats, gate: Matrix, up: Matrix, down: Matrix, scale: Matrix | None = None) -> Array:
    """down(silu(gate x) * up x), times sigmoid(scale x)."""
    y = matmul(silu(matmul(x, gate)) * matmul(x, up), down)
    return y * sigmoid(matmul(x, scale)) if scale else y


def expert_ffn(x: Floats, block: Bytes, layout: ExpertLayout) -> Array:
    """gated_mlp with the matrices of an expert's block."""
    return gated_mlp(x, *expert_matrices(layout, block))


def expert_sum(x: Floats, routing: Routing, blocks: Sequence[Bytes], layout: ExpertLayout, out: Array) -> None:
    """out[rows] += shares * expert_ffn(x[rows]), expert after expert."""
    begin = 0
    for block, end in zip(blocks, routing.ends, strict=True):
        rows, shares = routing.rows[begin:end], routing.shares[begin:end].astype(np.float64)
        out[rows] += shares[:, None] * expert_ffn(x[rows], block, layout)
        begin = end


def route(logits: Floats, k: int) -> tuple[Indices, Array]:
    """Softmax over all, the k greatest, renormalised, in ascending order of index."""
    p = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    chosen = np.sort(np.argsort(-p, axis=1, kind="stable")[:, :k], axis=1)
    weights = np.take_along_axis(p, chosen, axis=1)
    return chosen.astype(np.int32), weights / weights.sum(axis=1, keepdims=True)


def causal_conv(x: Floats, weight: Floats, state: Floats) -> Array:
    """y[t] = silu(sum over i of weight[i] * inputs[t + i]), inputs being the state followed by x."""
    inputs = np.concatenate([state, x]).astype(np.float64)
    state[...] = inputs[len(x) :]
    return silu(sum((inputs[i : i + len(x)] * row for i, row in enumerate(weight)), np.zeros(x.shape)))


def delta_gates(a: Floats, b: Floats, bias: Floats, rate: Floats) -> tuple[Array, Array]:
    """rate * log(1 + exp(a + bias)), and 1 / (1 + exp(-b))."""
    g: Array = rate.astype(np.float64) * np.logaddexp(a.astype(np.float64) + bias, 0.0)
    return g, 1.0 / (1.0 + np.exp(-b.astype(np.float64)))


def gated_delta(q: Floats, k: Floats, v: Floats, g: Floats, beta: Floats, state: Floats) -> Array:
    """S = exp(g) S; S = S + k ⊗ beta (v - Sᵀk); y = Sᵀq, per value head."""
    repeats = v.shape[1] // q.shape[1]
    q = np.repeat(_l2_normalized(q) * q.shape[2] ** -0.5, repeats, axis=1)  # [T, Hv, Dk]
    k = np.repeat(_l2_normalized(k), repeats, axis=1)
    s = state.astype(np.float64)  # [Hv, Dk, Dv]
    out = np.empty(v.shape)
    for t in range(len(v)):
        s *= np.exp(g[t].astype(np.float64))[:, None, None]
        delta = beta[t][:, None] * (v[t] - np.einsum("hkv,hk->hv", s, k[t]))
        s += k[t][:, :, None] * delta[:, None, :]
        out[t] = np.einsum("hkv,hk->hv", s, q[t])
    state[...] = s
    return out


def attention(q: Floats, k: Floats, v: Floats, start: int) -> Array:
    """softmax(q kᵀ D^-0.5) v over the keys up to each token's own."""
    num_tokens, num_heads, dim = q.shape
    repeats = num_heads // k.shape[1]
    out = np.empty(q.shape)
    for t in range(num_tokens):
        keys = np.repeat(k[: start + t + 1].astype(np.float64), repeats, axis=1)  # [n, Hq, D]
        values = np.repeat(v[: start + t + 1].astype(np.float64), repeats, axis=1)
        scores = np.einsum("hd,nhd->hn", q[t], keys) * dim**-0.5
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[t] = np.einsum("hn,nhd->hd", p / p.sum(axis=1, keepdims=True), values)
    return out


def rms_norm(x: Floats, weight: Floats, eps: float, plus_one: bool) -> Array:
    """x / sqrt(mean(x²) + eps) * weight or * (1 + weight)."""
    wide = x.astype(np.float64)
    normalized: Array = wide / np.sqrt((wide**2).mean(axis=-1, keepdims=True) + eps)
    return normalized * (weight.astype(np.float64) + plus_one)


def gated_rms_norm(x: Floats, gate: Floats, weight: Floats, eps: float) -> Array:
    """rms_norm(x) * weight * silu(gate)."""
    return rms_norm(x, weight, eps, plus_one=False) * silu(gate)


def silu_mul(gate: Floats, x: Floats) -> Array:
    """silu(gate) * x."""
    return silu(gate) * x


def sigmoid_mul(gate: Floats, x: Floats) -> Array:
    """sigmoid(gate) * x."""
    return sigmoid(gate) * x


def crc32c(buffer: bytes, seed: int = 0) -> int:
    """Bit by bit; the reflected Castagnoli polynomial."""
    crc = seed ^ 0xFFFFFFFF
    for byte in buffer:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _l2_normalized(x: Floats) -> Array:
    wide = x.astype(np.float64)
    normalized: Array = wide / np.sqrt((wide**2).sum(axis=-1, keepdims=True) + NORM_EPS)
    return normalized
