"""What was measured of one variant, as it is kept: answers and sums, of which every figure is made."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from edge.evaluation.scoring import PassageScore


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one question, greedy."""

    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Measured:
    """One variant."""

    name: str  # of its model
    bits: float
    is_calibrated: bool
    nbytes: int  # of its pack
    slots: int  # experts in RAM; 0 for a model without experts
    own_experts: float | None  # share of the experts used that the router chose; None where nothing may stand in
    seconds: float
    answers: tuple[Answer, ...]  # one for each question
    scores: tuple[PassageScore, ...]  # one for each passage
    logits_digest: str  # of all logits that the scores are made of

    @property
    def precision(self) -> str:
        """In words."""
        return f"{self.bits:g} bits" + (" calibrated" if self.is_calibrated else "")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The reverse."""
        answers = tuple(Answer(tuple(answer["ids"]), answer["text"]) for answer in value["answers"])
        scores = tuple(PassageScore(**score) for score in value["scores"])
        return cls(**{**value, "answers": answers, "scores": scores})
