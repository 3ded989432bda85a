"""Sparse mixture of experts: the router, the routed experts that its choice needs, and the shared expert if any."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge import kernels
from edge.checkpoint.layout import ExpertLayout
from edge.config import ModelConfig
from edge.errors import StorageError
from edge.kernels import ExpertSum, Routing
from edge.layers.leeway import Choice, Leeway
from edge.layers.mlp import GatedMlp
from edge.layers.weights import Weights
from edge.profiling import DISK_WAIT, EXPERTS, ROUTER, SHARED_EXPERT, Watch, each

Batch = list[tuple[int, NDArray[np.uint8]]]  # experts and their packed blocks
Meanwhile = Callable[[NDArray[np.float32]], None]


class ExpertSource(Protocol):
    """Where the packed blocks of routed experts come from."""

    layout: ExpertLayout

    def fetch(
        self, layer: int, experts: Sequence[int], *, is_scan: bool, spared: Sequence[int] = ()
    ) -> AbstractContextManager[Iterator[Batch]]:
        """Start loading `experts` (rising, distinct) of `layer`; the iterator yields each of them in one batch.

        If `is_scan` (a prompt passing through) one by one in rising order, else whatever is there together, before what
        is still loading. Blocks are valid until the next batch is asked for. The iterator raises StorageError.
        `spared`: other experts that were wanted but are done without, since they are not in RAM.
        """

    def holds(self, layer: int, expert: int) -> bool:
        """Whether an expert is in RAM, and not only on its way there: that would have to be waited for."""


class GuessTaker(Protocol):
    """Reads experts before they are asked for."""

    def wants_guesses(self, *, is_scan: bool) -> bool:
        """Whether `expect` would do anything in a pass of that kind: whoever guesses can save the work."""

    def expect(self, layer: int, experts: Sequence[int], scores: NDArray[np.float32]) -> None:
        """`layer`, the next one, is guessed to need `experts` (distinct, the surest first).

        They may be read while the disk has nothing to do. `scores` [T, E]: what the guess was taken from.
        """


class SparseMoe:
    """The feed-forward part of one layer."""

    def __init__(
        self,
        config: ModelConfig,
        layer: int,
        weights: Weights,
        source: ExpertSource,
        watch: Watch,
        leeway: Leeway | None = None,
    ) -> None:
        """`leeway`: what may depart from the router's choice; None: nothing."""
        self._layer = layer
        self._leeway = leeway
        self._top_k = config.top_k
        self._norm_topk = config.norm_topk
        self._source = source
        width = config.hidden_size
        self._router = weights.matrix("gate", config.num_experts, width)
        self._shared: GatedMlp | None = None
        if config.shared_expert_size:
            scale = weights.matrix("shared_expert_gate", 1, width)
            self._shared = GatedMlp(width, config.shared_expert_size, weights.under("shared_expert"), scale)
        self._routing, self._sharing = watch.span(ROUTER), watch.span(SHARED_EXPERT)
        self._computing, self._waiting = watch.span(EXPERTS), watch.span(DISK_WAIT)

    def forward(
        self, x: NDArray[np.float32], *, is_scan: bool, meanwhile: Meanwhile | None = None
    ) -> tuple[NDArray[np.float32], dict[int, StorageError]]:
        """f32[T, H] to f32[T, H], and the rows that have no result because an expert of theirs could not be read.

        `meanwhile` is given what the shared expert yields, f32[T, H], while the first reads are under way.
        """
        with self._routing:
            choice = self._choose(kernels.matmul(x, self._router), is_scan)
            routing = group_by_expert(choice.experts, choice.shares)
        wanted = self._layer, routing.experts
        try:
            with self._source.fetch(*wanted, is_scan=is_scan, spared=choice.spared) as batches:
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
            scores = kernels.matmul(x, self._router)
            taker.expect(self._layer, surest_first(*kernels.route(scores, self._top_k)), scores)

    def _choose(self, logits: NDArray[np.float32], is_scan: bool) -> Choice:
        """The experts of each token and their weights."""
        if self._leeway is None:
            choice = Choice(*kernels.route(logits, self._top_k))
        else:  # a prompt reads nearly all experts in any case: to go without some would gain nothing
            choice = self._leeway.choose(logits, None if is_scan else partial(self._source.holds, self._layer))
        if not self._norm_topk:  # what the softmax over all experts gave them, which sums to less than 1
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            mass = np.take_along_axis(odds, choice.experts, 1).sum(1, keepdims=True) / odds.sum(1, keepdims=True)
            choice = replace(choice, shares=choice.shares * mass)
        return choice

    def _one_by_one(
        self, x: NDArray[np.float32], routing: Routing
    ) -> tuple[NDArray[np.float32], dict[int, StorageError]]:
        """The same from the start, each expert fetched alone: a failed one is tried again and costs only its rows."""
        out, failed = self._shared_expert(x), dict[int, StorageError]()
        begin = 0
        for expert, end in zip(routing.experts, routing.ends, strict=True):
            rows, shares = routing.rows[begin:end], routing.shares[begin:end]
            alone, begin = Routing([expert], [end - begin], rows, shares), end
            try:
                with self._source.fetch(self._layer, [expert], is_scan=True) as batches:
                    self._add_experts(x, alone, batches, out)
            except StorageError as error:
                failed |= dict.fromkeys(rows.tolist(), error)
        return out, failed

    def _shared_expert(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._shared is None:
            return np.zeros_like(x)
        with self._sharing:
            return self._shared.forward(x)

    def _add_experts(
        self, x: NDArray[np.float32], routing: Routing, batches: Iterator[Batch], out: NDArray[np.float32]
    ) -> None:
        """Add each expert's share to `out`."""
        routed = ExpertSum(x, routing, self._source.layout, out)
        for batch in each(batches, self._waiting):
            with self._computing:
                routed.add(batch)


def surest_first(chosen: NDArray[np.int32], shares: NDArray[np.float32]) -> list[int]:
    """The experts in [T, K] choices, each once, by the greatest share that a token gives it."""
    experts: list[int] = chosen.ravel()[np.argsort(-shares.ravel(), kind="stable")].tolist()
    return experts if len(chosen) == 1 else list(dict.fromkeys(experts))


def group_by_expert(chosen: NDArray[np.int32], shares: NDArray[np.float32]) -> Routing:
    """[T, K] experts of each token, rising, and their shares, the other way round."""
    num_tokens, num_chosen = chosen.shape
    flat = chosen.reshape(-1)
    if num_tokens == 1:  # the same answer without the sorting, which decoding would pay in every layer
        return Routing(flat.tolist(), range(1, num_chosen + 1), np.zeros(num_chosen, np.int32), shares.reshape(-1))
    order = np.argsort(flat, kind="stable")  # by expert, tokens rising within each
    experts = flat[order]
    last = np.append(np.flatnonzero(experts[1:] != experts[:-1]), len(flat) - 1)  # of each expert
    rows = (order // num_chosen).astype(np.int32)
    return Routing(experts[last].tolist(), (last + 1).tolist(), rows, shares.reshape(-1)[order])
