"""Recent rates: tokens per second, hits per look-up, bytes per second of reading, bytes of prompt per token."""

from dataclasses import dataclass, field

from edge.server.pipe import Counters
from edge.server.prompt_cost import PromptCost


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
    """All of one node; only the time in which the engine works counts, so an idle hour changes nothing.

    decode: tokens of one sequence per second, beside as many others as there were; total_decode: of all together.
    batch: sequences that decode side by side. reuse: share of prompts' tokens that were known from earlier ones.
    """

    prefill: PromptCost = field(default_factory=PromptCost)
    decode: Rate = field(default_factory=_minute)
    total_decode: Rate = field(default_factory=_minute)
    batch: Rate = field(default_factory=_minute)
    disk: Rate = field(default_factory=_minute)
    hits: Rate = field(default_factory=lambda: Rate(20_000.0))
    reuse: Rate = field(default_factory=lambda: Rate(100_000.0))
    prompt_bytes_per_token: Rate = field(default_factory=lambda: Rate(100_000.0))

    def add_counters(self, added: Counters) -> None:
        self.hits.add(added.expert_hits, added.expert_lookups)
        self.disk.add(added.expert_read_bytes, added.disk_seconds)

    def seconds_for(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """How long the engine takes for a request beside the usual others; None before both rates were measured."""
        prefill, decode = self.prefill.tokens_per_second, self.decode.value
        if not (prefill and decode):
            return None
        return self.prefill.base_seconds + prompt_tokens / prefill + completion_tokens / decode
