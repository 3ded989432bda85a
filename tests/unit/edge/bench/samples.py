"""Counters of a run that never was, with round numbers."""

from edge.bench.measure import Measured, Phase
from edge.bench.roofs import Rates
from edge.bench.traffic import Weights
from edge.profiling import ATTENTION, DISK_WAIT, EXPERTS, HEAD, KINDS

# 1 kB of dense weights, 100 bytes of them the head; experts of 10 bytes.
WEIGHTS = Weights({ATTENTION: 900, HEAD: 100}, expert=10)
SLOW, FAST = Rates(disk=100.0, ram=1000.0), Rates(disk=300.0, ram=3000.0)


def phase(
    *, pass_seconds: tuple[float, ...], tokens: int, lookups: int = 40, hits: int = 10, disk_seconds: float = 1.0
) -> Phase:
    seconds = dict.fromkeys(KINDS, 0.0) | {DISK_WAIT: 0.75 * sum(pass_seconds), EXPERTS: 0.25 * sum(pass_seconds)}
    return Phase(pass_seconds, tokens, lookups, hits, 10 * (lookups - hits), 0, 0, 0, disk_seconds, seconds)


MEASURED = Measured(
    prefill=phase(pass_seconds=(2.0, 2.0), tokens=8),
    decode=phase(pass_seconds=(1.0, 2.0, 3.0, 4.0), tokens=8),
    ttft_seconds=4.0,
    prefetch_recall=0.5,
)
