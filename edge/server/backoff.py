"""How long to wait before an engine that died is started again."""

from collections.abc import Iterator

FIRST_S = 0.5
LONGEST_S = 30.0


def delays(first_s: float = FIRST_S, longest_s: float = LONGEST_S) -> Iterator[float]:
    """Doubling from `first_s` up to `longest_s`, which repeats. No jitter: one engine has nobody to collide with."""
    delay = first_s
    while True:
        yield min(delay, longest_s)
        delay = min(delay * 2, longest_s)
