"""How the stub behaves: its pace, and the failures it was asked for."""

import math
import random
from dataclasses import dataclass

from cloud_stub.errors import StartError
from cloud_stub.status import UNAVAILABLE, Status


@dataclass(frozen=True, slots=True)
class Scenario:
    """What every request meets. Failures come in this order: status, hang, cut."""

    # Wait before the first token, in seconds, at least 0.
    ttft_s: float = 0.0
    # Pace after the first token; None is as fast as possible.
    tokens_per_second: float | None = None
    # Share of requests, 0 to 1, answered with `status` before the first token. None: all if a status is given,
    # else none.
    fail_rate: float | None = None
    # None: UNAVAILABLE.
    status: Status | None = None
    # The stream breaks after this many tokens.
    cut_after: int | None = None
    # Accept and never answer.
    hang: bool = False
    # Which requests fail: the same seed and order of arrival fail the same ones.
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises StartError naming the option, its value and its range."""
        if not 0 <= self.ttft_s < math.inf:
            raise StartError(f"--ttft-ms is {self.ttft_s * 1000:g}: give 0 or more")
        if self.tokens_per_second is not None and not 0 < self.tokens_per_second < math.inf:
            raise StartError(f"--tokens-per-second is {self.tokens_per_second:g}: give more than 0")
        if self.fail_rate is not None and not 0 <= self.fail_rate <= 1:
            raise StartError(f"--fail-rate is {self.fail_rate:g}: give a share from 0 to 1")
        if self.cut_after is not None and self.cut_after < 0:
            raise StartError(f"--cut-after is {self.cut_after}: give 0 or more tokens")

    @property
    def gap_s(self) -> float:
        """Seconds between two tokens."""
        return 0.0 if self.tokens_per_second is None else 1 / self.tokens_per_second


class FailureDice:
    """Decides, in order of arrival, which requests fail at once. Not thread-safe: one event loop asks."""

    def __init__(self, scenario: Scenario) -> None:
        share_without_rate = 0.0 if scenario.status is None else 1.0
        self._rate = share_without_rate if scenario.fail_rate is None else scenario.fail_rate
        self._status = scenario.status or UNAVAILABLE
        self._random = random.Random(scenario.seed)  # noqa: S311 - a scenario has to repeat; nothing here is secret

    def throw(self) -> Status | None:
        """The status that the next request fails with, or None."""
        return self._status if self._random.random() < self._rate else None
