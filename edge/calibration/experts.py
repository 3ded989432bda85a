"""The routed experts of a layer, each quantised for the tokens that the packed model routes to it."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edge import kernels
from edge.calibration.encoding import as_stored, calibrated_encoding, joined
from edge.calibration.errors import MatrixError
from edge.calibration.layer import gated
from edge.calibration.streams import Streams, blocks
from edge.checkpoint.in_order import in_order, num_threads
from edge.checkpoint.layout import ExpertLayout, MatrixLayout
from edge.checkpoint.matrix import Bytes, Matrix
from edge.checkpoint.names import Part
from edge.checkpoint.source import Checkpoint, SourceMatrix
from edge.config import ModelConfig
from edge.quant.curvature import Curvature, Moments

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Inputs = tuple[Floats, Floats]  # of a matrix: what the packed model gives it, and the unquantised one


@dataclass(frozen=True, slots=True)
class PackedExpert:
    """The bytes of its matrices, and the error of each."""

    pieces: tuple[Bytes, ...]
    errors: dict[Part, MatrixError]
    num_tokens: int  # of the calibration that were routed to it


@dataclass(frozen=True, slots=True)
class Routed:
    """The tokens of an expert, rising, and the share of its output in each."""

    rows: Rows
    shares: Floats


class ExpertCalibration:
    """All experts of one layer.

    To an expert's own tokens comes the mean of all tokens of the layer, as if it were as many as a matrix has columns:
    an expert with fewer tokens than columns leans on what every token looks like, one with many forgets it.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        layer: int,
        layout: ExpertLayout,
        router: Matrix,
        normal: Streams,
        moments: Moments,
    ) -> None:
        """`normal`: the inputs of the layer's feed-forward part, `moments` their moments."""
        self._checkpoint, self._layer, self._layout = checkpoint, layer, layout
        self._config, self._normal, self._moments = checkpoint.config, normal, moments
        self._given = routed(self._config, router, normal.given)
        self._wanted = routed(self._config, router, normal.wanted)

    def run(self, streams: Streams) -> Iterator[PackedExpert]:
        """Pack expert after expert, on all cores, and add what each yields to both streams."""
        jobs = ((expert, partial(self._pack, expert)) for expert in range(self._config.num_experts))
        with closing(in_order(jobs, num_threads())) as results:
            for expert, (packed, given, wanted) in results:
                streams.given[self._given[expert].rows] += given
                streams.wanted[self._wanted[expert].rows] += wanted
                yield packed

    def _pack(self, expert: int) -> tuple[PackedExpert, Floats, Floats]:
        """The expert, and its part of the output for the tokens that each stream routes to it."""
        own, other = self._given[expert], self._wanted[expert]
        inputs = self._inputs(own.rows)
        curvature = self._input_curvature(inputs)
        gate = self._encode(expert, Part.GATE, curvature)
        up = self._encode(expert, Part.UP, curvature)
        exact = [as_stored(self._source(expert, part)) for part in Part]
        pairs = ((gate.matrix, exact[0]), (up.matrix, exact[1]))
        hidden = _hidden(inputs, *pairs)
        down = self._encode(expert, Part.DOWN, _down_curvature(hidden, _hidden(self._inputs(self._sample()), *pairs)))
        parts = dict(zip(Part, (gate, up, down), strict=True))
        packed = PackedExpert(
            tuple(part.matrix.data for part in parts.values()),
            {part: encoded.error for part, encoded in parts.items()},
            len(own.rows),
        )
        given = own.shares[:, None] * kernels.matmul(hidden[0], down.matrix)
        elsewhere = gated(self._normal.wanted[other.rows], exact[0], exact[1])
        return packed, given, other.shares[:, None] * kernels.matmul(elsewhere, exact[2])

    def _input_curvature(self, inputs: Inputs) -> Curvature:
        moments = Moments.of(*inputs)
        moments.add(self._moments, inputs[0].shape[1] / self._moments.num_tokens)
        return Curvature(moments)

    def _inputs(self, rows: Rows) -> Inputs:
        return np.asarray(self._normal.given[rows]), np.asarray(self._normal.wanted[rows])

    def _sample(self) -> Rows:
        """Tokens of the layer, evenly spread, not more than `down` has columns."""
        num_tokens = len(self._normal.given)
        return np.arange(0, num_tokens, -(-num_tokens // self._config.expert_size))

    def _source(self, expert: int, part: Part) -> SourceMatrix:
        return self._checkpoint.expert(self._layer, expert, part)

    def _encode(self, expert: int, part: Part, curvature: Curvature) -> "_Encoded":
        source: SourceMatrix = self._source(expert, part)
        layout: MatrixLayout = getattr(self._layout, part.value)
        pieces = [job() for job in calibrated_encoding(source, layout, curvature)]
        error = sum((error for _, error in pieces), MatrixError())
        return _Encoded(joined(layout, (data for data, _ in pieces)), error)


@dataclass(frozen=True, slots=True)
class _Encoded:
    matrix: Matrix
    error: MatrixError


def routed(config: ModelConfig, router: Matrix, inputs: Floats) -> list[Routed]:
    """The tokens of each expert, for inputs [T, H] of the layer's feed-forward part."""
    chosen, shares = (np.concatenate(parts) for parts in zip(*_routes(config, router, inputs), strict=True))
    order = np.argsort(chosen, axis=None, kind="stable")  # by expert, tokens rising within each
    ends = np.cumsum(np.bincount(chosen.reshape(-1), minlength=config.num_experts))
    rows, flat = order // config.top_k, shares.reshape(-1)[order]
    return [Routed(*pair) for pair in zip(np.split(rows, ends[:-1]), np.split(flat, ends[:-1]), strict=True)]


def _routes(config: ModelConfig, router: Matrix, inputs: Floats) -> Iterator[tuple[NDArray[np.int32], Floats]]:
    for rows in blocks(len(inputs)):
        logits = kernels.matmul(np.ascontiguousarray(inputs[rows]), router)
        chosen, shares = kernels.route(logits, config.top_k)
        if not config.norm_topk:  # the shares of the softmax over all experts
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            shares *= np.take_along_axis(odds, chosen, 1).sum(1, keepdims=True) / odds.sum(1, keepdims=True)
        yield chosen, shares


def _hidden(inputs: Inputs, gates: tuple[Matrix, Matrix], ups: tuple[Matrix, Matrix]) -> Inputs:
    """What `down` is given, of inputs as packed and as they should be; matrices as packed and unquantised."""
    given, wanted = (gated(x, gate, up) for x, gate, up in zip(inputs, gates, ups, strict=True))
    return given, wanted


def _down_curvature(hidden: Inputs, usual: Inputs) -> Curvature:
    """Of an expert's own tokens and, as many as there are columns, of the layer's `usual` ones."""
    moments = Moments.of(*hidden)
    moments.add(Moments.of(*usual), usual[0].shape[1] / len(usual[0]))
    return Curvature(moments)
