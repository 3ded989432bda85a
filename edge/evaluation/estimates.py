"""What a sample says of the whole, and how surely: shares and means with their 95% intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z = 1.959963984540054  # of 95% in the normal distribution, two-sided


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `total`, with the interval of Wilson, "Probable inference", JASA 22 (1927) 209-212.

    Unlike value ± error it stays within 0 to 1 and does not shrink to nothing where all or none are right.
    """

    count: int
    total: int

    @property
    def value(self) -> float:
        """0 to 1."""
        return self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end."""
        n, p = self.total, self.value
        centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        # The ends are 0 and 1 exactly where none or all are right, which rounding would miss.
        return (max(0.0, centre - half) if self.count else 0.0), (min(1.0, centre + half) if self.count < n else 1.0)


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean and half the width of its 95% interval, infinite where one passage cannot tell it."""

    value: float
    error: float


def mean_per_token(sums: Sequence[float], counts: Sequence[int]) -> Mean:
    """Of a quantity summed over the tokens of each passage: the sum of sums over the sum of counts.

    Tokens of one passage go together, so passages are what was drawn: the error is that of a ratio estimator over
    clusters, Cochran, "Sampling Techniques" (1977), chapter 6, from a normal distribution.
    """
    n, tokens = len(sums), sum(counts)
    value = math.fsum(sums) / tokens
    if n < 2:
        return Mean(value, math.inf)
    deviations = math.fsum((total - value * count) ** 2 for total, count in zip(sums, counts, strict=True))
    return Mean(value, Z * math.sqrt(n / (n - 1) * deviations) / tokens)
