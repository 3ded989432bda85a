"""From what was counted to what is reported: plain JSON values under the keys that `bench --json` prints."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edge.bench.footprint import Footprint
from edge.bench.measure import Measured, Phase
from edge.bench.roofs import Load, Rates, Share, mean, share_of_roof
from edge.bench.traffic import Weights
from edge.profiling import HEAD

Figures = dict[str, Any]


def figures(
    measured: Measured,
    weights: Weights,
    rates: Sequence[Rates],
    sequences: int,
    ram_rates: Sequence[float] = (),
) -> Figures:
    """Everything that follows from one run; `rates` were measured before and after it.

    `ram_rates`, taken while it decoded, stand for theirs of RAM in what is said of decoding: the middle half of them.
    """
    prefill, decode = measured.prefill, measured.decode
    decode_load, prefill_load = loads(measured, weights)
    prefill_share = share_of_roof(prefill_load, prefill.seconds, rates)
    roof = mean(rates)
    if ram_rates:
        low, _, high = quartiles(ram_rates)
        rates = [replace(each, ram=ram) for each, ram in zip(rates, (low, high), strict=True)]
        # Of bytes read at changing rates it is the times that add up.
        roof = replace(roof, ram=statistics.harmonic_mean(ram_rates))
    decode_share = share_of_roof(decode_load, decode.seconds, rates, roof)
    return {
        "decode_tokens_per_second": decode.tokens_per_second,
        "decode_tokens_per_second_per_sequence": decode.tokens_per_second / sequences,
        **_share("decode", decode_share),
        "decode_pass_seconds_quartiles": quartiles(decode.pass_seconds),
        "prefill_tokens_per_second": prefill.tokens_per_second,
        **_share("prefill", prefill_share),
        "ttft_seconds": measured.ttft_seconds,
        "expert_bytes_per_token": decode.read_bytes / decode.tokens,
        "prefetch_bytes_per_token": decode.prefetch_bytes / decode.tokens,
        "prefetch_wasted_bytes_per_token": decode.prefetch_wasted_bytes / decode.tokens,
        "prefetch_recall": measured.prefetch_recall,
        "substituted_experts_per_token": decode.routing.substituted / decode.tokens,
        "router_weight_kept": decode.routing.mean_weight_kept,
        "dense_bytes_per_token": decode.dense_read_bytes / decode.tokens,
        "expert_lookups_per_token": decode.lookups / decode.tokens,
        "ram_bytes_per_token": decode_load.ram_bytes / decode.tokens,
        "cache_hit_rate": decode.hit_rate,
        "prefill_expert_bytes": prefill.read_bytes,
        "prefill_dense_bytes": prefill.dense_read_bytes,
        "prefill_cache_hit_rate": prefill.hit_rate,
        "disk_bytes_per_second": roof.disk,
        "ram_bytes_per_second": roof.ram,
        "ram_samples": len(ram_rates),
        "roofs": [{"disk_bytes_per_second": r.disk, "ram_bytes_per_second": r.ram} for r in rates],
        "decode_disk_bytes_per_second": _while_reading(decode),
        "prefill_disk_bytes_per_second": _while_reading(prefill),
        "decode_seconds_by_kind": decode.seconds_by_kind,
        "prefill_seconds_by_kind": prefill.seconds_by_kind,
    }


def memory_figures(footprint: Footprint, budget_bytes: int) -> Figures:
    """What the process came to hold."""
    return {
        "peak_memory_bytes": footprint.peak_bytes,
        "page_cache_bytes": footprint.page_cache_bytes,
        "memory_counted_by": footprint.source,
        "memory_budget_bytes": budget_bytes,
    }


def loads(measured: Measured, weights: Weights) -> tuple[Load, Load]:
    """What decoding, and what reading the prompt, had to read.

    Disk: the dense weights read, and the experts that were not in RAM when asked for; what was read on a wrong guess
    was not needed. RAM: the
    weights that the computation goes through, the dense ones once per pass and each expert once per pass and layer that
    needs it. A prompt needs the head once, after its last pass.
    """
    prefill, decode = measured.prefill, measured.decode
    decode_ram = weights.pass_bytes(0) * len(decode.pass_seconds) + decode.lookups * weights.expert
    prefill_ram = weights.pass_bytes(0, with_head=False) * len(prefill.pass_seconds) + prefill.lookups * weights.expert
    decode_disk, prefill_disk = (phase.misses * weights.expert + phase.dense_read_bytes for phase in (decode, prefill))
    return Load(decode_disk, decode_ram), Load(prefill_disk, prefill_ram + weights.dense[HEAD])


def quartiles(values: Sequence[float]) -> list[float]:
    """First quartile, median, third quartile."""
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3


def _share(phase: str, share: Share) -> Figures:
    return {
        f"{phase}_roof_share": share.share,
        f"{phase}_roof_share_range": [share.least, share.most],
        f"{phase}_bound_by": share.bound,
    }


def _while_reading(phase: Phase) -> float | None:
    """Bytes per second while at least one read was under way; None if there was none."""
    return (phase.read_bytes + phase.dense_read_bytes) / phase.disk_seconds if phase.disk_seconds else None
