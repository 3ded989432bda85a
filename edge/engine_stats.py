"""What an engine has done so far."""

from dataclasses import dataclass

from edge.deviation import NOT_COUNTED, RoutingCounts
from edge.prefix.store import PrefixStats
from edge.speculation.speculation import NOTHING_DRAFTED, SpeculationStats


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The engine since it was loaded."""

    expert_hits: int
    expert_lookups: int
    expert_read_bytes: int
    dense_read_bytes: int
    disk_seconds: float
    experts_resident: int
    expert_slots: int
    memory_bytes: int
    peak_memory_bytes: int
    memory_budget_bytes: int
    prefixes: PrefixStats
    prefetch_bytes: int = 0  # of the expert bytes, those read on a guess
    prefetch_wasted_bytes: int = 0  # and of these, not asked for by the layer that they were meant for
    prefetch_recall: float = 0.0  # share of the experts needed that had been guessed, read or not
    speculation: SpeculationStats = NOTHING_DRAFTED
    routing: RoutingCounts = NOT_COUNTED  # how far experts were others than the model's own, if that was asked for

    @property
    def hit_rate(self) -> float:
        """Share of expert look-ups answered from RAM; 0 before the first."""
        return self.expert_hits / self.expert_lookups if self.expert_lookups else 0.0
