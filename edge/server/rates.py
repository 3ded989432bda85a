"""Recent rates: tokens per second, hits per look-up, bytes per second of reading, bytes of prompt per token."""

from dataclasses import dataclass, field

from edge.server.pipe import Counters


class Rate:
    """An average that forgets: what was measured counts half after another `half_life` of the divisor's unit."""

    def __init__(self, half_life: float) -> None:
        self._half_life = half_life
        self._amount = 0.0
        self._over = 0.0

    def add(self, amount: float, over: float) -> None:
        """`amount` things took `over` seconds (or look-ups). Nothing is learned from an `over` of 0."""
        if over <= 0:
            return
        kept = 0.5 ** (over / self._half_life)
        self._amount = self._amount * kept + amount
        self._over = self._over * kept + over

    @property
    def value(self) -> float:
        """0 before the first measurement."""
        return self._amount / self._over if self._over else 0.0


def _minute() -> Rate:
    return Rate(60.0)


@dataclass(frozen=True, slots=True)
class Rates:
    """All of one node; only the time in which the engine works counts, so an idle hour changes nothing."""

    prefill: Rate = field(default_factory=_minute)
    decode: Rate = field(default_factory=_minute)
    disk: Rate = field(default_factory=_minute)
    hits: Rate = field(default_factory=lambda: Rate(20_000.0))
    prompt_bytes_per_token: Rate = field(default_factory=lambda: Rate(100_000.0))

    def add_counters(self, added: Counters) -> None:
        self.hits.add(added.expert_hits, added.expert_lookups)
        self.disk.add(added.expert_read_bytes, added.disk_seconds)

    def seconds_for(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """How long the engine would take; None before both rates were measured."""
        if not (self.prefill.value and self.decode.value):
            return None
        return prompt_tokens / self.prefill.value + completion_tokens / self.decode.value
