"""The native kernels as numpy functions: the only importer of `edge._native`.

Arrays are C-contiguous and of the dtype in the signature; anything else is a TypeError, a wrong size a ValueError.
A result for one token is bit-identical whatever batch it is computed in and on however many threads. Formulas:
`edge/reference.py`. All functions release the GIL; those that compute take turns on one thread pool.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge import _native
from edge.checkpoint.layout import ExpertLayout, MatrixLayout
from edge.checkpoint.matrix import Matrix
from edge.errors import StorageError

Floats = NDArray[np.float32]
Indices = NDArray[np.int32]
Bytes = NDArray[np.uint8]


def matmul(x: Floats, w: Matrix) -> Floats:
    """x Wᵀ. Shapes: x [T, cols], result [T, rows]."""
    out = np.empty((len(x), w.layout.rows), np.float32)
    _native.matmul(x, w.data, _matrix(w.layout), out)
    return out


class Projections:
    """Matrices of one width, for products with one input: prepared once, and all their rows shared out at once."""

    def __init__(self, *matrices: Matrix) -> None:
        layouts = [matrix.layout for matrix in matrices]
        self._native = _native.Projections([matrix.data for matrix in matrices], [_matrix(each) for each in layouts])
        self._ends = list(accumulate(layout.rows for layout in layouts))

    def __call__(self, x: Floats) -> list[Floats]:
        """matmul(x, matrix) of each, bit for bit. Shapes: x [T, cols], results [T, rows]."""
        num_tokens, begin, products = len(x), 0, []
        out = np.empty(num_tokens * self._ends[-1], np.float32)
        self._native.multiply(x, out)
        for end in self._ends:
            products.append(out[num_tokens * begin : num_tokens * end].reshape(num_tokens, end - begin))
            begin = end
        return products


class GatedMlp:
    """down(silu(gate x) * up x), times sigmoid(scale x) if there is a `scale` of one row."""

    def __init__(self, gate: Matrix, up: Matrix, down: Matrix, scale: Matrix | None = None) -> None:
        """ValueError unless gate and up are stored alike, and all fit together."""
        matrices = [gate, up, down, *([scale] if scale else [])]
        data, layouts = [matrix.data for matrix in matrices], [_matrix(matrix.layout) for matrix in matrices]
        self._native = _native.GatedMlp(data, layouts)

    def __call__(self, x: Floats) -> Floats:
        """Shapes: x and result [T, H]."""
        out = np.empty(x.shape, np.float32)
        self._native.multiply(x, out)
        return out


@dataclass(frozen=True, slots=True)
class Routing:
    """Which tokens go to which experts. Expert number i takes the entries [ends[i - 1], ends[i]) of rows and shares."""

    experts: list[int]  # distinct, rising
    ends: Sequence[int]
    rows: Indices  # tokens, rising within an expert
    shares: Floats  # the weight of the expert's output in that token


class ExpertSum:
    """The outputs of routed experts, each times its share, added to `out` in rising order in whatever order they come.

    A sum of floats depends on its order, and the order in which experts come on what a cache happened to hold.
    """

    def __init__(self, x: Floats, routing: Routing, layout: ExpertLayout, out: Floats) -> None:
        """Shapes: x, out [T, H], apart from each other. What comes early waits: one output per row."""
        self._native = _native.ExpertSum(
            x, out, routing.experts, routing.ends, routing.rows, routing.shares, _expert(layout)
        )

    def add(self, batch: Sequence[tuple[int, Bytes]]) -> None:
        """Some experts, each of which comes once, and their blocks [block_bytes], on all threads together."""
        self._native.add(batch)


def route(logits: Floats, k: int) -> tuple[Indices, Floats]:
    """The k experts of each token: indices [T, k] ascending, and their softmax weights [T, k] that sum to 1.

    Shapes: logits [T, E]. The softmax is over all experts; among equal logits the lower index is taken.
    """
    indices = np.empty((len(logits), k), np.int32)
    weights = np.empty((len(logits), k), np.float32)
    _native.route(logits, k, indices, weights)
    return indices, weights


def causal_conv(x: Floats, weight: Floats, state: Floats) -> Floats:
    """Depthwise causal convolution over time, then SiLU.

    Shapes: x [T, C], weight [W, C] (newest input last), state [W-1, C]: the inputs before x, replaced by the last ones.
    """
    out = np.empty(x.shape, np.float32)
    _native.causal_conv(x, weight, state, out)
    return out


def delta_gates(a: Floats, b: Floats, bias: Floats, rate: Floats) -> tuple[Floats, Floats]:
    """The gates of `gated_delta`: g = rate * log(1 + exp(a + bias)) and beta = sigmoid(b).

    Shapes: a, b [T, Hv], bias, rate [Hv], both results [T, Hv].
    """
    g, beta = np.empty(a.shape, np.float32), np.empty(a.shape, np.float32)
    _native.delta_gates(a, b, bias, rate, g, beta)
    return g, beta


def gated_delta(q: Floats, k: Floats, v: Floats, g: Floats, beta: Floats, state: Floats) -> Floats:
    """The gated delta rule, token after token; q and k are L2-normalised here, q is scaled by Dk^-0.5.

    Shapes: q, k [T, Hk, Dk], v [T, Hv, Dv], g (log decay), beta [T, Hv], state [Hv, Dk, Dv] updated in place,
    result [T, Hv, Dv]. Key head i serves the value heads i * Hv/Hk and following.
    """
    out = np.empty(v.shape, np.float32)
    _native.gated_delta(q, k, v, g, beta, state, out)
    return out


class DeltaNet:
    """What lies between the projections of a Gated DeltaNet layer: its convolution, gates, delta rule and gated norm.

    Shapes: conv [W, C], bias, rate [Hv], norm [Dv]; C = 2 Hk Dk + Hv Dv: queries, keys and values side by side.
    """

    def __init__(
        self, conv: Floats, bias: Floats, rate: Floats, norm: Floats, eps: float, *, key_heads: int, key_dim: int
    ) -> None:
        self._native = _native.DeltaNet(conv, bias, rate, norm, eps, key_heads, key_dim)

    def __call__(
        self, qkv: Floats, z: Floats, b: Floats, a: Floats, states: Sequence[tuple[int, Floats, Floats]]
    ) -> Floats:
        """The next tokens of some sequences side by side; their states move on, no two of which share memory.

        Shapes: qkv [T, C], z and result [T, Hv Dv], b, a [T, Hv]; states: the number of tokens of each sequence, the
        state of its convolution [W-1, C] and the recurrent one [Hv, Dk, Dv].
        """
        out = np.empty(z.shape, np.float32)
        self._native.advance(qkv, z, b, a, states, out)
        return out


def attention(q: Floats, k: Floats, v: Floats, start: int) -> Floats:
    """Causal attention with grouped heads; token t sees keys 0 ... start + t. Scores are scaled by D^-0.5.

    Shapes: q [T, Hq, D], k, v [capacity, Hkv, D], result [T, Hq, D].
    """
    out = np.empty(q.shape, np.float32)
    _native.attention(q, k, v, start, out)
    return out


def rms_norm(x: Floats, weight: Floats, eps: float, plus_one: bool) -> Floats:
    """x / sqrt(mean(x²) + eps) * weight, or * (1 + weight) with `plus_one`. Shapes: x [N, D], weight [D]."""
    out = np.empty(x.shape, np.float32)
    _native.rms_norm(x, weight, eps, plus_one, out)
    return out


def gated_rms_norm(x: Floats, gate: Floats, weight: Floats, eps: float) -> Floats:
    """rms_norm(x) * weight * silu(gate). Shapes: x, gate [N, D], weight [D]."""
    out = np.empty(x.shape, np.float32)
    _native.gated_rms_norm(x, gate, weight, eps, out)
    return out


def silu_mul(gate: Floats, x: Floats) -> Floats:
    """silu(gate) * x. Any shape, the same for both."""
    return _gated(_native.silu_mul, gate, x)


def sigmoid_mul(gate: Floats, x: Floats) -> Floats:
    """sigmoid(gate) * x. Any shape, the same for both."""
    return _gated(_native.sigmoid_mul, gate, x)


def scale_rows(gate: Floats, x: Floats) -> None:
    """x *= sigmoid(gate), one gate per row, in place. Shapes: gate [N], x [N, D]."""
    _native.scale_rows(gate, x)


def read_ram(buffer: Bytes) -> float:
    """Read every byte of `buffer` on all threads, as fast as they can: what no kernel that streams weights can beat.

    `buffer` is aligned to 64 bytes. The result depends on its contents and means nothing.
    """
    return float(_native.read_ram(buffer))


def crc32c(buffer: Bytes | bytes | bytearray | memoryview, seed: int = 0) -> int:
    """CRC-32C (Castagnoli) of contiguous bytes that follow bytes whose checksum is `seed`."""
    return _native.crc32c(_bytes(buffer), seed)


def set_num_threads(count: int) -> None:
    """Use `count` threads (1 to 1024), the caller's included, from the next kernel on."""
    _native.set_num_threads(count)


def variants() -> tuple[str, ...]:
    """The instruction-set variants that this CPU can run, best first."""
    return tuple(_native.variants())


def variant() -> str:
    """The instruction-set variant in use."""
    return _native.variant()


def use_variant(name: str) -> None:
    """Compute with another variant of `variants()`. Results differ in rounding between variants."""
    _native.use_variant(name)


@dataclass(frozen=True, slots=True)
class ReadCounters:
    """What an ExpertReader did so far."""

    demand_bytes: int = 0
    prefetch_bytes: int = 0  # read before somebody asked
    busy_seconds: float = 0.0  # with at least one read under way
    demand_seconds: float = 0.0  # with at least one under way that is no prefetch
    wait_seconds: float = 0.0  # in which callers of `wait` and `wait_any` were held up
    abandoned_bytes: int = 0  # of all of them, those of reads that were abandoned

    @property
    def bytes_read(self) -> int:
        """Bytes fetched in all."""
        return self.demand_bytes + self.prefetch_bytes


class ExpertReader:
    """Reads aligned blocks of files on native threads that never take the GIL, past the page cache where possible.

    Thread-safe. Offsets, sizes and addresses are multiples of 4096; a ValueError otherwise.
    """

    def __init__(self, paths: Sequence[str | Path], *, threads: int = 16, direct: bool = True) -> None:
        """Open the files. `direct=False` goes through the page cache and drops what it left there.

        Raises: StorageError naming a file that cannot be opened.
        """
        if not 1 <= threads <= 1024:
            raise ValueError(f"threads is {threads}, expected 1 to 1024")
        try:
            self._reader = _native.Reader([os.fspath(path) for path in paths], threads, direct)
        except _native.ReadError as exc:
            raise StorageError(str(exc)) from None

    def tune(self, queue_depth: int, part_bytes: int, prefetch_depth: int | None = None) -> None:
        """Ask the disk for at most `queue_depth` parts (`threads` if that is less) at once, each of `part_bytes`.

        With 0 nothing more is asked for until the next call. Parts of prefetches are asked for only while fewer than
        `prefetch_depth` parts are under way; None: as if somebody waited for them.
        """
        self._reader.tune(queue_depth, part_bytes, queue_depth if prefetch_depth is None else prefetch_depth)

    def read(self, file: int, offset: int, out: Bytes, crc: int | None, *, is_prefetch: bool = False) -> int:
        """Start to fill `out` from paths[file] and return a ticket; its CRC-32C must equal `crc` unless that is None.

        `out` is kept alive until `wait` returns. It must be neither read nor written before. A prefetch is read when no
        other read is queued.
        """
        return self._reader.read(file, offset, out, crc, is_prefetch)

    def wait(self, ticket: int) -> None:
        """Block until the read has ended. Each ticket is waited for once; ValueError for any other.

        Raises: StorageError naming file, offset and cause if the read failed; `out` is then undefined.
        """
        try:
            self._reader.wait(ticket)
        except _native.ReadError as exc:
            raise StorageError(str(exc)) from None

    def wait_any(self, tickets: Sequence[int]) -> list[int]:
        """Block until one of the reads has ended, well or not; those that have. `wait` is still due for each."""
        return self._reader.wait_any(tickets)

    def is_done(self, ticket: int) -> bool:
        """Whether `wait` would return at once."""
        return self._reader.is_done(ticket)

    def promote(self, ticket: int) -> None:
        """A prefetch is needed now: what is left of it is read like any other."""
        self._reader.promote(ticket)

    def cancel(self, ticket: int) -> bool:
        """Forget a read of which nothing has begun; false if it has, it then goes on and must be waited for."""
        return self._reader.cancel(ticket)

    def abandon(self, ticket: int) -> bool:
        """Drop what has not begun of a read, of which `wait` is due all the same; false if all of it has begun.

        What an abandoned read leaves in `out` is undefined, and not checked.
        """
        return self._reader.abandon(ticket)

    @property
    def direct(self) -> bool:
        """Whether every file is read with O_DIRECT; false once a file system has refused it."""
        return self._reader.direct

    def counters(self) -> ReadCounters:
        """What was read so far, and the time it took."""
        now = self._reader.counters()
        return ReadCounters(
            now.demand_bytes,
            now.prefetch_bytes,
            now.busy_seconds,
            now.demand_seconds,
            now.wait_seconds,
            now.abandoned_bytes,
        )

    @property
    def bytes_read(self) -> int:
        """Bytes fetched so far."""
        return self.counters().bytes_read

    @property
    def busy_seconds(self) -> float:
        """Time during which at least one read was in flight."""
        return self.counters().busy_seconds

    def close(self) -> None:
        """End the threads. Reads that have begun finish first; those that have not fail. Idempotent."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


@lru_cache(maxsize=1024)
def _matrix(layout: MatrixLayout) -> _native.MatrixLayout:
    return _native.MatrixLayout(
        format=int(layout.format),
        rows=layout.rows,
        cols=layout.cols,
        group=layout.group,
        padded_cols=layout.padded_cols,
        record_bytes=layout.record_bytes,
        nbytes=layout.nbytes,
    )


@lru_cache(maxsize=64)
def _expert(layout: ExpertLayout) -> _native.ExpertLayout:
    return _native.ExpertLayout(
        gate=_matrix(layout.gate),
        up=_matrix(layout.up),
        down=_matrix(layout.down),
        gate_offset=layout.gate_offset,
        up_offset=layout.up_offset,
        down_offset=layout.down_offset,
        nbytes=layout.block_bytes,
    )


def _gated(op: Callable[[Floats, Floats, Floats], None], gate: Floats, x: Floats) -> Floats:
    if gate.shape != x.shape:
        raise ValueError(f"gate has shape {gate.shape}, x {x.shape}")
    if not (gate.flags.c_contiguous and x.flags.c_contiguous):
        raise TypeError("gate and x must be C-contiguous")
    out = np.empty(x.shape, np.float32)
    op(gate.reshape(-1), x.reshape(-1), out.reshape(-1))
    return out


def _bytes(buffer: Bytes | bytes | bytearray | memoryview) -> Bytes:
    return np.frombuffer(buffer, np.uint8)


def _choose_variant(environ: Mapping[str, str]) -> None:
    """FLASHGATE_ISA names a variant to use instead of the best one: one of `variants()`."""
    name = environ.get("FLASHGATE_ISA")
    if name is None:
        return
    if name not in variants():
        raise ValueError(f"FLASHGATE_ISA is {name!r}; this CPU can run {', '.join(variants())}")
    use_variant(name)


_native.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
_choose_variant(os.environ)
