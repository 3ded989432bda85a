"""What a packed model would do under a budget: the memory plan, short probes of this machine, and the read model."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge.bench.costs import measure_costs
from edge.bench.prediction import Costs, Prediction, Routing, predict, routing_of, uniform
from edge.bench.probe import block_files
from edge.bench.traffic import Weights, weights
from edge.budget import MARGIN_BYTES, MemoryPlan
from edge.checkpoint.layout import BLOCK_ALIGNMENT
from edge.checkpoint.matrix import aligned_zeros
from edge.checkpoint.pack import Pack
from edge.checkpoint.routing_skew import frequencies
from edge.config import ModelConfig
from edge.engine_options import EngineOptions
from edge.engine_parts import planned
from edge.errors import TraceError
from edge.experts.disk_probe import disk_roof
from edge.experts.simulate import POLICIES, simulate
from edge.experts.trace import Trace
from edge.experts.tuning import MAX_QUEUE_DEPTH, probe
from edge.kernels import ExpertReader

UNIFORM, SKEWED = "uniform", "skewed"
MEMORY_PARTS = ("baseline", "dense", "state", "scratch", "expert", "prefix")
POLICY = "lfu"  # the expert store's
PROBE_SECONDS = 1.0
MOST_BURST_BYTES = 512 * 1024**2

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What is not to be measured or assumed otherwise. Rates in bytes per second."""

    disk_rate: float | None = None  # None: measured here
    compute_rate: float | None = None  # weights that the kernels go through; None: measured here
    routing: str = UNIFORM  # or SKEWED, as the real model's
    trace: Path | None = None  # recorded by `bench --trace`: instead of `routing`
    recall: float = 0.75  # of reads on a guess, as `bench` reports it; this is usual, for random weights and real ones
    prompt_tokens: int = 512


def forecast(path: Path, options: EngineOptions, assumptions: Assumptions) -> Figures:
    """Everything that `plan --json` prints; `options.max_sequences` sequences decode side by side.

    Raises PackError, BudgetError, TraceError, StorageError.
    """
    pack = Pack.open(path).without_mtp()  # what guessing gains depends on the text
    plan, sequences = planned(pack, options), options.max_sequences or 1
    config, sizes = pack.config, weights(pack.manifest.contents)
    routing = replace(expected_routing(config, plan.num_slots, sequences, assumptions), recall=assumptions.recall)
    costs = (
        costs_at(sizes, assumptions.compute_rate)
        if assumptions.compute_rate
        else measure_costs(pack, sequences=sequences, threads=options.threads, seconds=PROBE_SECONDS)
    )
    disk_rate = assumptions.disk_rate or measured_disk_rate(pack, routing)
    one_pass = predict(
        costs,
        routing,
        num_layers=config.num_layers,
        block_bytes=sizes.expert,
        disk_rate=disk_rate,
        streamed_bytes=plan.dense_streamed_bytes,
    )
    return {
        "model": pack.name,
        "num_layers": config.num_layers,
        "num_experts": config.num_experts,
        "top_k": config.top_k,
        "bits": pack.manifest.contents.bits,
        "context_tokens": options.context_tokens,
        "threads": options.threads,
        "sequences": sequences,
        "memory": memory_parts(plan, options.memory_bytes),
        "expert_slots": plan.num_slots,
        "streamed_layers": len(plan.streamed_layers),
        "dense_streamed_bytes": plan.dense_streamed_bytes,
        "chunk_tokens": plan.chunk_tokens,
        "routing": str(assumptions.trace or assumptions.routing),
        **_decode(one_pass, costs, routing, sizes, config),
        "disk_bytes_per_second": disk_rate,
        "disk_rate_is": "given" if assumptions.disk_rate else "measured",
        "compute_rate_is": "given" if assumptions.compute_rate else "measured",
        **_prefill(plan, sizes, config, disk_rate, assumptions),
    }


def expected_routing(config: ModelConfig, num_slots: int, sequences: int, assumptions: Assumptions) -> Routing:
    """What a pass asks of a layer, and how much of it a full cache holds. Raises TraceError."""
    if not config.num_experts:
        return Routing(0.0, 1.0)
    if assumptions.trace:
        return traced_routing(Trace.read(assumptions.trace), num_slots)
    slots = num_slots / config.num_layers
    return routing_of(_frequencies(config, assumptions.routing), tokens=sequences, slots=slots)


def traced_routing(trace: Trace, num_slots: int) -> Routing:
    """Of the passes of a trace that only decoded, with the expert store's own policy. Raises TraceError."""
    decodes = [access for access in trace if not access.is_scan]
    if not any(access.experts for access in decodes):
        raise TraceError("the trace has no pass that only decodes: record it with `bench --trace`, and let that end")
    uses = sum(len(access.experts) for access in decodes) / max(1, len({access.step for access in decodes}))
    outcome = simulate(trace, POLICIES[POLICY](uses, ()), num_slots)
    return Routing(outcome.decode_lookups / max(1, len(decodes)), outcome.decode_hit_rate)


def costs_at(sizes: Weights, compute_rate: float) -> Costs:
    """If computing took what going through its weights at some rate takes."""
    return Costs({kind: nbytes / compute_rate for kind, nbytes in sizes.dense.items()}, sizes.expert / compute_rate)


def measured_disk_rate(pack: Pack, routing: Routing) -> float:
    """For as many experts at once as a layer is short of; of a model without experts, for one read after another.

    Raises StorageError.
    """
    if not pack.config.num_experts:
        return disk_roof(block_files(pack), PROBE_SECONDS).bytes_per_second
    block_bytes, config = pack.experts.block_bytes, pack.config
    count = min(max(1, round(routing.misses)), max(1, MOST_BURST_BYTES // block_bytes))
    into = aligned_zeros(count * block_bytes, BLOCK_ALIGNMENT).reshape(count, block_bytes)
    places = [(layer, e * block_bytes) for layer in range(config.num_layers) for e in range(config.num_experts)]
    with ExpertReader(pack.expert_paths, threads=MAX_QUEUE_DEPTH) as reader:
        return probe(reader, into, places, PROBE_SECONDS).bytes_per_second


def memory_parts(plan: MemoryPlan, memory_bytes: int) -> Mapping[str, int]:
    """Who gets how much of the budget."""
    parts = {name: getattr(plan, f"{name}_bytes") for name in MEMORY_PARTS}
    return {**parts, "margin": MARGIN_BYTES, "unused": memory_bytes - plan.total_bytes, "budget": memory_bytes}


def _frequencies(config: ModelConfig, routing: str) -> list[float]:
    if routing == SKEWED:
        return [float(frequency) for frequency in frequencies(config.num_experts, config.top_k)]
    return uniform(config.num_experts, config.top_k)


def _decode(one_pass: Prediction, costs: Costs, routing: Routing, sizes: Weights, config: ModelConfig) -> Figures:
    lookups = config.num_layers * routing.lookups
    return {
        "decode_passes_per_second": 1 / one_pass.seconds,
        "pass_seconds": one_pass.seconds,
        "compute_seconds": one_pass.compute_seconds,
        "compute_seconds_by_kind": costs.pass_seconds,
        "expert_seconds": costs.expert_seconds,
        "wait_seconds": one_pass.wait_seconds,
        "experts_per_layer": routing.lookups,
        "cache_hit_rate": routing.hit_rate,
        "prefetch_recall": routing.recall,
        "expert_block_bytes": sizes.expert,
        "disk_bytes_per_pass": one_pass.disk_bytes,
        "ram_bytes_per_pass": sizes.pass_bytes(lookups),
    }


def _prefill(
    plan: MemoryPlan, sizes: Weights, config: ModelConfig, disk_rate: float, assumptions: Assumptions
) -> Figures:
    """A prompt reads each expert that it needs once per chunk, apart from those in RAM."""
    whole, rest = divmod(assumptions.prompt_tokens, plan.chunk_tokens)
    slots = plan.num_slots / config.num_layers
    misses = sum(
        routing_of(_frequencies(config, assumptions.routing), tokens=tokens, slots=slots).misses * times
        for tokens, times in ((plan.chunk_tokens, whole), (rest, 1))
        if tokens and config.num_experts
    )
    nbytes = config.num_layers * misses * sizes.expert
    nbytes += plan.dense_streamed_bytes * (whole + bool(rest))
    return {
        "prompt_tokens": assumptions.prompt_tokens,
        "prefill_disk_bytes": nbytes,
        "prefill_disk_seconds": nbytes / disk_rate,
    }
