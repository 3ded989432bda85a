"""What a training says of itself: an event for each step, and a line for whoever watches."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """After one step. Losses are nats per target; `seconds` counts all runs of the training."""

    step: int
    tokens: int
    loss: float
    mtp: float
    balance: float
    gradient: float
    rate: float
    tokens_per_s: float
    seconds: float

    def event(self) -> dict[str, float]:
        """For the log, with four significant digits."""
        return {key: value if isinstance(value, int) else float(f"{value:.4g}") for key, value in asdict(self).items()}

    def line(self, tokens_in_all: int) -> str:
        """With the time left at the mean speed of all runs so far."""
        left = max(0, tokens_in_all - self.tokens) * self.seconds / max(1, self.tokens)
        hours, minutes = divmod(round(left / 60), 60)
        share = self.tokens / tokens_in_all
        return (
            f"step {self.step}  {self.tokens / 1e6:.2f}M tokens ({share:.1%})  loss {self.loss:.3f}  "
            f"{self.tokens_per_s:,.0f} tokens/s  {hours} h {minutes:02} min left"
        )
