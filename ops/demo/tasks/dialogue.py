"""What a task hands out: turns of a chat, each with the program that judges an answer to it."""

from dataclasses import dataclass

from edge.evaluation.checks import Check


@dataclass(frozen=True, slots=True)
class Turn:
    """A question, the answer to learn, what judges another answer, and the values that decide which side it is on."""

    question: str
    answer: str
    check: Check
    key: str


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One chat. A later turn may refer to the turn before it."""

    task: str
    turns: tuple[Turn, ...]

    def messages(self, num_answers: int | None = None) -> list[dict[str, str]]:
        """The chat as messages up to its last question, or with `num_answers` answers and the question after them."""
        count = len(self.turns) - 1 if num_answers is None else num_answers
        messages = []
        for turn in self.turns[:count]:
            messages += [_message("user", turn.question), _message("assistant", turn.answer)]
        if count < len(self.turns):
            messages.append(_message("user", self.turns[count].question))
        return messages


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
