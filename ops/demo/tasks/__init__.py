"""Generators of chats whose answers a program can judge: one file per family, all of them here."""

from collections.abc import Callable, Iterator
from itertools import count

from ops.demo.tasks import arithmetic, dates, flashgate, lists, passages, records, rewriting, units, unknown
from ops.demo.tasks.dialogue import Dialogue
from ops.demo.tasks.draw import Draw, Side

# How often training draws each; the harder ones more often.
SHARES: dict[str, float] = {
    arithmetic.NAME: 0.22,
    dates.NAME: 0.14,
    units.NAME: 0.09,
    lists.NAME: 0.13,
    records.NAME: 0.14,
    rewriting.NAME: 0.1,
    passages.NAME: 0.1,
    flashgate.NAME: 0.05,
    unknown.NAME: 0.03,
}
_MAKERS: dict[str, Callable[[Draw], Dialogue]] = {
    task.NAME: task.make for task in (arithmetic, dates, units, lists, records, rewriting, passages, flashgate, unknown)
}
TASKS = tuple(_MAKERS)


def make_dialogue(task: str, seed: str, side: Side) -> Dialogue:
    """One chat of a family, decided by seed and side alone."""
    return _MAKERS[task](Draw(f"{task} {seed}", side))


def mixture(seed: str, side: Side = Side.TRAIN) -> Iterator[Dialogue]:
    """Chats of all families by their shares, without end."""
    families, shares = tuple(SHARES), tuple(SHARES.values())
    for index in count():
        task = Draw(f"{seed} family {index}", side).weighted(families, shares)
        yield make_dialogue(task, f"{seed} {index}", side)
