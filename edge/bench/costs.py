"""Measures what computing takes on this machine: a few of a pack's layers, run with every expert in RAM."""

import random
import statistics
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from edge import kernels
from edge.batch import Segment
from edge.bench.prediction import Costs
from edge.checkpoint.contents import DENSE_FILE, DenseEntry
from edge.checkpoint.disk import PackFile
from edge.checkpoint.layout import BLOCK_ALIGNMENT, ExpertLayout
from edge.checkpoint.matrix import Matrix, aligned_zeros
from edge.checkpoint.pack import Pack
from edge.config import FULL_ATTENTION, LINEAR_ATTENTION, ModelConfig
from edge.layers.moe import Batch
from edge.layers.weights import Tensor
from edge.model import Model
from edge.profiling import ATTENTION, DELTANET, DISK_WAIT, EXPERTS, HEAD, KINDS, Stopwatch
from edge.state import SequenceState

# Layers with their experts are far larger than a CPU's caches, as the whole model is.
SAMPLE_LAYERS = 4
SAMPLE_EXPERTS_BYTES = 256 * 1024**2
SAMPLE_VOCABULARY = 8192
VOCABULARY_TABLES = ("embed_tokens", "lm_head")
LEAST_PASSES = 5
MOST_PASSES = 256


def measure_costs(pack: Pack, *, sequences: int, threads: int, seconds: float = 1.0) -> Costs:
    """Seconds of a pass in which `sequences` sequences get a token each. Takes `seconds` after the loading.

    Holds up to four layers, a part of the vocabulary and 256 MB of experts. Raises PackError.
    """
    kernels.set_num_threads(threads)
    config = sample_config(pack.config)
    experts = _Experts(pack) if config.num_experts else None
    watch = Stopwatch()
    model = Model(config, _load(pack, config), experts, watch)
    states = [SequenceState(config, MOST_PASSES) for _ in range(sequences)]
    ids = random.Random(0)  # noqa: S311 no secret
    passes: list[dict[str, float]] = []
    began = perf_counter()
    while len(passes) <= LEAST_PASSES or (perf_counter() - began < seconds and len(passes) < MOST_PASSES):
        watch.take()
        model.logits(model.forward([Segment([ids.randrange(config.vocab_size)], state) for state in states]))
        passes.append(watch.take())
    lookups = experts.num_lookups / len(passes) if experts else 0
    return scaled(typical(passes[1:]), lookups, pack.config, config)  # the first one met cold memory


def typical(passes: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of each kind the median: what the machine did besides in a pass is not the pass's."""
    return {kind: statistics.median(seconds[kind] for seconds in passes) for kind in KINDS}


def scaled(sample: dict[str, float], lookups: float, config: ModelConfig, part: ModelConfig) -> Costs:
    """From a pass of `part`, with so many look-ups of experts, to one of `config`."""
    ratio = dict.fromkeys(KINDS, config.num_layers / part.num_layers)
    for kind, layer_type in ((ATTENTION, FULL_ATTENTION), (DELTANET, LINEAR_ATTENTION)):
        ratio[kind] = config.layer_types.count(layer_type) / max(1, part.layer_types.count(layer_type))
    ratio[HEAD] = config.vocab_size / part.vocab_size
    return Costs(
        {kind: sample[kind] * ratio[kind] for kind in KINDS if kind not in (EXPERTS, DISK_WAIT)},
        sample[EXPERTS] / lookups if lookups else 0.0,
    )


def sample_config(config: ModelConfig) -> ModelConfig:
    """The same with its first layers only, enough to have each kind of layer, and the first ids only."""
    needed = max(config.layer_types.index(kind) for kind in set(config.layer_types)) + 1
    num_layers = min(config.num_layers, max(needed, SAMPLE_LAYERS))
    return replace(
        config,
        num_layers=num_layers,
        layer_types=config.layer_types[:num_layers],
        vocab_size=min(config.vocab_size, SAMPLE_VOCABULARY),
    )


def _load(pack: Pack, config: ModelConfig) -> dict[str, Tensor]:
    """The dense tensors of the sample, not checked: figures do not depend on them."""
    kept = {f"layers.{layer}" for layer in range(config.num_layers)}
    with closing(PackFile(pack.path / DENSE_FILE)) as file:
        return {
            entry.name: _tensor(file, _first_rows(entry, config.vocab_size))
            for entry in pack.manifest.contents.dense
            if not entry.name.startswith("layers.") or ".".join(entry.name.split(".")[:2]) in kept
        }


def _first_rows(entry: DenseEntry, rows: int) -> DenseEntry:
    """A table of the vocabulary cut to its first rows, which lie first in the file too."""
    if entry.name not in VOCABULARY_TABLES or entry.layout is None:
        return entry
    return replace(entry, shape=(rows, entry.shape[1]), layout=replace(entry.layout, rows=rows))


def _tensor(file: PackFile, entry: DenseEntry) -> Tensor:
    data = aligned_zeros(entry.nbytes)
    file.read_into(data, entry.offset)
    return Matrix(entry.layout, data) if entry.layout else data.view(np.float32).reshape(entry.shape)


_Blocks = Iterator[Iterator[Batch]]


class _Experts:
    """An ExpertSource of which every expert is in RAM: some real ones stand for all."""

    def __init__(self, pack: Pack) -> None:
        self.layout: ExpertLayout = pack.experts
        self.num_lookups = 0
        block_bytes = self.layout.block_bytes
        count = min(pack.config.num_experts * pack.config.num_layers, max(1, SAMPLE_EXPERTS_BYTES // block_bytes))
        self._blocks = aligned_zeros(count * block_bytes, BLOCK_ALIGNMENT).reshape(count, block_bytes)
        for index, block in enumerate(self._blocks):
            pack.read_expert(index // pack.config.num_experts, index % pack.config.num_experts, block)

    @contextmanager
    def fetch(self, layer: int, experts: Sequence[int], *, is_scan: bool, spared: Sequence[int] = ()) -> _Blocks:  # noqa: ARG002
        yield iter([[(expert, self._next_block()) for expert in experts]])

    def holds(self, layer: int, expert: int) -> bool:  # noqa: ARG002 of the protocol
        return True

    def _next_block(self) -> NDArray[np.uint8]:
        self.num_lookups += 1
        block: NDArray[np.uint8] = self._blocks[self.num_lookups % len(self._blocks)]
        return block
