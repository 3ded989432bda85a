"""How the demo model is trained: every number of it, and the learning rate's course."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyper-parameters. What is changed between two runs of one training holds from there on."""

    seed: int = 0
    tokens: int = 40_000_000  # in all
    tokens_per_step: int = 4096
    peak_rate: float = 2e-3
    warm_up_steps: int = 60
    decay_share: float = 0.3  # of all tokens, at the end
    weight_decay: float = 0.05
    clip: float = 1.0
    prompt_share: float = 0.1
    balance_weight: float = 0.05
    mtp_weight: float = 0.2
    mtp_from: float = 0.02  # share of all tokens after which the MTP layer learns too
    mtp_every: int = 3  # steps, of which one teaches it: a step with it takes a third longer

    def __post_init__(self) -> None:
        """Raises: ValueError naming every number that is out of its range."""
        counts = ("tokens", "tokens_per_step", "warm_up_steps", "mtp_every", "peak_rate", "clip")
        shares = ("prompt_share", "mtp_from")
        problems = [
            f"{name} is {getattr(self, name)}; must be above 0" for name in counts if not getattr(self, name) > 0
        ]
        problems += [
            f"{name} is {getattr(self, name)}; must be in 0..1" for name in shares if not 0 <= getattr(self, name) <= 1
        ]
        if not 0 < self.decay_share <= 1:
            problems.append(f"decay_share is {self.decay_share}; must be above 0 and at most 1")
        weights = ("weight_decay", "balance_weight", "mtp_weight", "seed")
        problems += [
            f"{name} is {getattr(self, name)}; must not be negative" for name in weights if not getattr(self, name) >= 0
        ]
        if problems:
            raise ValueError("recipe: " + "; ".join(problems))

    def teaches_mtp(self, step: int, tokens_seen: int) -> bool:
        """Whether the MTP layer learns in this step."""
        return tokens_seen >= self.mtp_from * self.tokens and step % self.mtp_every == 0

    def rate(self, step: int, tokens_seen: int) -> float:
        """Warm-up, a plateau, then down in a straight line to nothing: the plateau can be made longer at any time."""
        warm = min(1.0, (step + 1) / self.warm_up_steps)
        left = max(0.0, 1 - tokens_seen / self.tokens)
        return self.peak_rate * warm * min(1.0, left / self.decay_share)
