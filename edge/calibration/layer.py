"""One layer: quantised matrix after matrix, each for what the packed model gives it, and the streams moved on by it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge import kernels
from edge.calibration import streams as files
from edge.calibration.gathering import gathered
from edge.calibration.layer_weights import DenseWeights
from edge.calibration.mixing import OpenMixer, batches, mixer_names
from edge.calibration.streams import Streams, blocks
from edge.checkpoint.matrix import Matrix
from edge.config import ModelConfig
from edge.quant.curvature import Curvature, Moments

Floats = NDArray[np.float32]
Sequences = Sequence[Sequence[int]]


def calibrate_mixer(
    config: ModelConfig, kind: str, weights: DenseWeights, streams: Streams, sequences: Sequences, scratch: Path
) -> None:
    """Pack the token mixer of a layer of `kind` and add what it yields to both streams."""
    place, inputs, last = mixer_names(kind)
    norm, num_tokens = weights.vector("input_layernorm"), len(streams.given)

    def normal(stream: Floats, rows: slice) -> Floats:
        return normalise(config, stream[rows], norm)

    def both(rows: slice) -> tuple[Floats, Floats]:
        return normal(streams.given, rows), normal(streams.wanted, rows)

    curvature = Curvature(gathered(num_tokens, both))
    for name in inputs:
        weights.pack(f"{place}.{name}", curvature)
    last = f"{place}.{last}"
    exact_mixer, packed_mixer = (OpenMixer(config, kind, tensors) for tensors in (weights.wanted, weights.given))
    mixed = files.create(scratch, "mixed", num_tokens, weights.num_columns(last))
    for rows, some in batches(sequences):
        mixed.wanted[rows] = exact_mixer.mix(normal(streams.wanted, rows), some)
        mixed.given[rows] = packed_mixer.mix(normal(streams.given, rows), some)
    weights.pack(last, Curvature(gathered(num_tokens, lambda rows: (mixed.given[rows], mixed.wanted[rows]))))
    exact, packed = weights.matrices(last)
    for rows in blocks(num_tokens):
        streams.wanted[rows] += kernels.matmul(np.asarray(mixed.wanted[rows]), exact)
        streams.given[rows] += kernels.matmul(np.asarray(mixed.given[rows]), packed)
    files.remove(scratch, "mixed")


def normalise(config: ModelConfig, x: Floats, weight: Floats) -> Floats:
    """A layer's norm of rows [T, H]."""
    return kernels.rms_norm(np.ascontiguousarray(x), weight, config.rms_norm_eps, config.norm_plus_one)


def calibrate_mlp(
    weights: DenseWeights, place: str, scale: str | None, normal: Streams, inputs: Curvature, streams: Streams
) -> None:
    """Pack a gated MLP that every token goes through, `place` being where its tensors are, and add what it yields.

    `normal`: its inputs, of which `inputs` is the curvature. `scale`: the tensor that its output is gated with.
    """
    gate, up, down = (f"{place}{name}_proj" for name in ("gate", "up", "down"))
    weights.pack(gate, inputs)
    weights.pack(up, inputs)
    gates, ups = weights.matrices(gate), weights.matrices(up)

    def hidden(rows: slice) -> tuple[Floats, Floats]:
        return gated(normal.given[rows], gates[1], ups[1]), gated(normal.wanted[rows], gates[0], ups[0])

    weights.pack(down, Curvature(gathered(len(normal.given), hidden)))
    scales = weights.matrices(scale) if scale else (None, None)
    exact, packed = map(kernels.GatedMlp, gates, ups, weights.matrices(down), scales)
    for rows in blocks(len(normal.given)):
        streams.wanted[rows] += exact(np.ascontiguousarray(normal.wanted[rows]))
        streams.given[rows] += packed(np.ascontiguousarray(normal.given[rows]))


def gated(x: Floats, gate: Matrix, up: Matrix) -> Floats:
    """silu(gate x) * up x of rows [T, H]: what `down` is given."""
    x = np.ascontiguousarray(x)
    return kernels.silu_mul(kernels.matmul(x, gate), kernels.matmul(x, up))


def normal_streams(config: ModelConfig, streams: Streams, weight: Floats, scratch: Path) -> tuple[Streams, Moments]:
    """Both streams after a norm, in files `normal`, and their moments."""
    num_tokens, width = streams.given.shape
    normal = files.create(scratch, "normal", num_tokens, width)
    for rows in blocks(num_tokens):
        normal.wanted[rows] = normalise(config, streams.wanted[rows], weight)
        normal.given[rows] = normalise(config, streams.given[rows], weight)
    return normal, gathered(num_tokens, lambda rows: (normal.given[rows], normal.wanted[rows]))
