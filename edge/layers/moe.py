"""Sparse mixture of experts: the router, the routed experts that its choice needs, and the shared expert if any."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge import kernels
from edge.checkpoint.layout import ExpertLayout
from edge.config import ModelConfig
from edge.errors import StorageError
from edge.layers.mlp import GatedMlp
from edge.layers.weights import Weights
from edge.profiling import DISK_WAIT, EXPERTS, ROUTER, SHARED_EXPERT, Watch, each

FIRST_ROW = np.zeros(1, np.int32)

Batch = list[tuple[int, NDArray[np.uint8]]]  # experts and their packed blocks
Meanwhile = Callable[[NDArray[np.float32]], None]


class ExpertSource(Protocol):
    """Where the packed blocks of routed experts come from."""

    layout: ExpertLayout

    def fetch(self, layer: int, experts: Sequence[int], *, is_scan: bool) -> AbstractContextManager[Iterator[Batch]]:
        """Start loading `experts` (rising, distinct) of `layer`; the iterator yields each of them in one batch.

        If `is_scan` (a prompt passing through) one by one in rising order, else whatever is there together, before what
        is still loading. Blocks are valid until the next batch is asked for. The iterator raises StorageError.
        """


class GuessTaker(Protocol):
    """Reads experts before they are asked for."""

    def wants_guesses(self, *, is_scan: bool) -> bool:
        """Whether `expect` would do anything in a pass of that kind: whoever guesses can save the work."""

    def expect(self, layer: int, experts: Sequence[int]) -> None:
        """`layer`, the next one, is guessed to need `experts` (distinct, the surest first).

        They may be read while the disk has nothing to do.
        """


@dataclass(frozen=True, slots=True)
class Routing:
    """Which tokens go to which experts, grouped by expert."""

    experts: list[int]  # distinct, rising
    rows: list[NDArray[np.int32]]  # per expert the tokens that chose it, rising
    shares: list[NDArray[np.float32]]  # and the weight of its output in each


class SparseMoe:
    """The feed-forward part of one layer."""

    def __init__(self, config: ModelConfig, layer: int, weights: Weights, source: ExpertSource, watch: Watch) -> None:
        self._layer = layer
        self._top_k = config.top_k
        self._norm_topk = config.norm_topk
        self._source = source
        width = config.hidden_size
        self._router = weights.matrix("gate", config.num_experts, width)
        self._shared: GatedMlp | None = None
        if config.shared_expert_size:
            self._shared = GatedMlp(width, config.shared_expert_size, weights.under("shared_expert"))
            self._shared_expert_gate = weights.matrix("shared_expert_gate", 1, width)
        self._routing, self._sharing = watch.span(ROUTER), watch.span(SHARED_EXPERT)
        self._computing, self._waiting = watch.span(EXPERTS), watch.span(DISK_WAIT)

    def forward(
        self, x: NDArray[np.float32], *, is_scan: bool, meanwhile: Meanwhile | None = None
    ) -> tuple[NDArray[np.float32], dict[int, StorageError]]:
        """f32[T, H] to f32[T, H], and the rows that have no result because an expert of theirs could not be read.

        `meanwhile` is given what the shared expert yields, f32[T, H], while the first reads are under way.
        """
        with self._routing:
            routing = group_by_expert(*self._route(kernels.matmul(x, self._router)))
        try:
            with self._source.fetch(self._layer, routing.experts, is_scan=is_scan) as batches:
                out = self._shared_expert(x)  # while the first reads are under way
                if meanwhile:
                    meanwhile(out)
                self._add_experts(x, routing, batches, out)
        except StorageError:
            return self._one_by_one(x, routing)
        return out, {}

    def guess(self, x: NDArray[np.float32], taker: GuessTaker) -> None:
        """Tell `taker` which experts `forward` would need for x f32[T, H]."""
        with self._routing:
            taker.expect(self._layer, surest_first(*kernels.route(kernels.matmul(x, self._router), self._top_k)))

    def _route(self, logits: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The experts of each token, rising, and their shares: [T, K] both."""
        experts, shares = kernels.route(logits, self._top_k)
        if not self._norm_topk:  # what the softmax over all experts gave them, which sums to less than 1
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            shares *= np.take_along_axis(odds, experts, 1).sum(1, keepdims=True) / odds.sum(1, keepdims=True)
        return experts, shares

    def _one_by_one(
        self, x: NDArray[np.float32], routing: Routing
    ) -> tuple[NDArray[np.float32], dict[int, StorageError]]:
        """The same from the start, each expert fetched alone: a failed one is tried again and costs only its rows."""
        out, failed = self._shared_expert(x), dict[int, StorageError]()
        for position, expert in enumerate(routing.experts):
            alone = Routing([expert], [routing.rows[position]], [routing.shares[position]])
            try:
                with self._source.fetch(self._layer, [expert], is_scan=True) as batches:
                    self._add_experts(x, alone, batches, out)
            except StorageError as error:
                failed |= dict.fromkeys(routing.rows[position].tolist(), error)
        return out, failed

    def _shared_expert(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._shared is None:
            return np.zeros_like(x)
        with self._sharing:
            out = self._shared.forward(x)
            kernels.scale_rows(kernels.matmul(x, self._shared_expert_gate).reshape(-1), out)
        return out

    def _add_experts(
        self, x: NDArray[np.float32], routing: Routing, batches: Iterator[Batch], out: NDArray[np.float32]
    ) -> None:
        """Add each expert's share to `out` in rising order of experts, in whatever order they arrive.

        A sum of floats depends on its order, and the order of arrival on what the cache happened to hold.
        """
        positions = {expert: position for position, expert in enumerate(routing.experts)}
        waiting: dict[int, NDArray[np.float32]] = {}
        next_position = 0
        for batch in each(batches, self._waiting):
            with self._computing:
                waiting |= self._run_batch(x, routing, [(positions[expert], block) for expert, block in batch])
                while next_position in waiting:
                    y = waiting.pop(next_position)
                    kernels.scatter_add(out, routing.rows[next_position], routing.shares[next_position], y)
                    next_position += 1

    def _run_batch(self, x: NDArray[np.float32], routing: Routing, batch: Batch) -> dict[int, NDArray[np.float32]]:
        """The outputs of the experts at some positions of `routing`, for the tokens that chose them."""
        rows = [routing.rows[position] for position, _ in batch]
        y = kernels.expert_ffn_grouped(x, rows, [block for _, block in batch], self._source.layout)
        outputs, begin = {}, 0
        for (position, _), chosen in zip(batch, rows, strict=True):
            outputs[position] = y[begin : begin + len(chosen)]
            begin += len(chosen)
        return outputs


def surest_first(chosen: NDArray[np.int32], shares: NDArray[np.float32]) -> list[int]:
    """The experts in [T, K] choices, each once, by the greatest share that a token gives it."""
    experts = chosen.ravel()[np.argsort(-shares.ravel(), kind="stable")]
    if len(chosen) == 1:
        return experts.tolist()
    return list(dict.fromkeys(experts.tolist()))


def group_by_expert(chosen: NDArray[np.int32], shares: NDArray[np.float32]) -> Routing:
    """[T, K] experts of each token, rising, and their shares, the other way round."""
    num_tokens, num_chosen = chosen.shape
    if num_tokens == 1:  # the same answer without the sorting, which decoding would pay in every layer
        return Routing(chosen[0].tolist(), [FIRST_ROW] * num_chosen, list(shares.reshape(num_chosen, 1)))
    flat = chosen.ravel()
    order = np.argsort(flat, kind="stable")  # by expert, tokens rising within each
    experts = flat[order]
    rows, weights = (order // num_chosen).astype(np.int32), shares.ravel()[order]
    # Slices, for np.unique and np.split together take 0.1 ms, in every layer of every step.
    starts = [0, *(np.flatnonzero(experts[1:] != experts[:-1]) + 1).tolist()]
    runs = list(zip(starts, [*starts[1:], len(flat)], strict=True))
    return Routing(
        experts[starts].tolist(), [rows[begin:end] for begin, end in runs], [weights[begin:end] for begin, end in runs]
    )
