"""Conversion between units of length, mass, volume and time, and of two units into one."""

from dataclasses import dataclass

from edge.evaluation.checks import EndsWith, LastNumber
from ops.demo.tasks.arithmetic import Problem
from ops.demo.tasks.dialogue import Dialogue, Turn
from ops.demo.tasks.draw import Draw
from ops.demo.tasks.phrases import ask
from ops.demo.tasks.texts import lines

NAME = "units"

QUESTIONS = lines("""
    How many {to} are {n} {of}?
    Convert {n} {of} to {to}.
    What is {n} {of} in {to}?
    {n} {of} in {to}?
    {n} {of} to {to}
    Express {n} {of} in {to}.
    How many {to} are there in {n} {of}?
    Change {n} {of} into {to}.
    {n} {of} is how many {to}?
""")
MORE = ("And {n}?", "And {n} {of}?", "What about {n} {of}?", "And for {n} {of}?")
SPLIT = lines("""
    Write {n} {small} as {large} and {small}.
    Convert {n} {small} to {large} and {small}.
    What is {n} {small} in {large} and {small}?
""")
JOINED = lines("""
    How many {small} are {a} {large} and {b} {small}?
    Convert {a} {large} {b} {small} to {small}.
    What is {a} {large} and {b} {small} in {small}?
""")


@dataclass(frozen=True, slots=True)
class Pair:
    """`factor` of the small unit make one of the large; `names`: ways to write large and small."""

    names: tuple[tuple[str, str], ...]
    factor: int

    @property
    def is_decimal(self) -> bool:
        """Whether only the point moves."""
        return self.factor in (10, 100, 1000)


PAIRS = (
    Pair((("km", "m"), ("kilometres", "metres")), 1000),
    Pair((("m", "cm"), ("metres", "centimetres")), 100),
    Pair((("cm", "mm"), ("centimetres", "millimetres")), 10),
    Pair((("kg", "g"), ("kilograms", "grams")), 1000),
    Pair((("l", "ml"), ("litres", "millilitres")), 1000),
    Pair((("tonnes", "kg"), ("tonnes", "kilograms")), 1000),
    Pair((("hours", "minutes"), ("h", "min")), 60),
    Pair((("minutes", "seconds"), ("min", "s")), 60),
    Pair((("days", "hours"),), 24),
    Pair((("weeks", "days"),), 7),
    Pair((("years", "months"),), 12),
    Pair((("feet", "inches"), ("ft", "in")), 12),
    Pair((("dozen", "pieces"),), 12),
)


def make(draw: Draw) -> Dialogue:
    """One or two turns."""
    pair = draw.one(PAIRS)
    names = draw.one(pair.names)
    if not pair.is_decimal and draw.chance(0.35):
        return Dialogue(NAME, (draw.one((_join, _split))(draw, pair, names),))
    is_down = draw.chance(0.6)
    turns = [_convert(draw, pair, names, is_down, QUESTIONS)]
    if draw.chance(0.3):
        turns.append(_convert(draw, pair, names, is_down, MORE))
    return Dialogue(NAME, tuple(turns))


def _convert(draw: Draw, pair: Pair, names: tuple[str, str], is_down: bool, questions: tuple[str, ...]) -> Turn:
    """Down: into the smaller unit."""
    key, thousandths = draw.on_side(lambda: _amount(draw, pair, is_down))
    number = plain(thousandths)
    of, to = names if is_down else names[::-1]
    result = thousandths * pair.factor if is_down else thousandths // pair.factor
    answer = f"{number} {of} = {_steps(pair, thousandths // 1000, is_down)}{plain(result)} {to}"
    return Turn(ask(draw, questions, n=number, of=of, to=to), answer, LastNumber(plain(result)), key)


def _amount(draw: Draw, pair: Pair, is_down: bool) -> tuple[str, int]:
    """In thousandths, with at most three digits that are not zero, whole where the factor is no power of ten."""
    if not pair.is_decimal:
        count = draw.number(2, 99)
        return f"{NAME} {pair.factor} {count}", 1000 * (count if is_down else count * pair.factor)
    digits = draw.number(1, 999)
    if is_down:
        thousandths = digits * draw.one(
            (1000, 1000, 100 if pair.factor >= 10 else 1000, 10 if pair.factor >= 100 else 100)
        )
        return f"{NAME} {pair.factor} down {digits}", thousandths
    return f"{NAME} {pair.factor} up {digits}", digits * draw.one(
        (1, 10, 100)
    ) * pair.factor if pair.factor < 1000 else (digits * draw.one((1, 10, 100)) * 1000)


def _steps(pair: Pair, count: int, is_down: bool) -> str:
    if pair.is_decimal:
        return ""
    if is_down:
        return f"{Problem(count, '×', pair.factor).answer().rpartition(' = ')[0]} = "
    return f"{count} ÷ {pair.factor} = "


def plain(thousandths: int) -> str:
    """As a decimal number without zeros at its end."""
    whole, rest = divmod(thousandths, 1000)
    return f"{whole}.{rest:03d}".rstrip("0").rstrip(".")


def _parts(draw: Draw, pair: Pair) -> tuple[str, tuple[int, int]]:
    large, small = draw.number(1, 12), draw.number(1, pair.factor - 1)
    return f"{NAME} parts {pair.factor} {large} {small}", (large, small)


def _join(draw: Draw, pair: Pair, names: tuple[str, str]) -> Turn:
    key, (a, b) = draw.on_side(lambda: _parts(draw, pair))
    question = ask(draw, JOINED, a=a, b=b, large=names[0], small=names[1])
    total = a * pair.factor + b
    return Turn(
        question,
        f"{a} × {pair.factor} + {b} = {a * pair.factor} + {b} = {total} {names[1]}",
        LastNumber(str(total)),
        key,
    )


def _split(draw: Draw, pair: Pair, names: tuple[str, str]) -> Turn:
    key, (a, b) = draw.on_side(lambda: _parts(draw, pair))
    total = a * pair.factor + b
    question = ask(draw, SPLIT, n=total, large=names[0], small=names[1])
    answer = f"{a} × {pair.factor} = {a * pair.factor}, {total} - {a * pair.factor} = {b}: "
    result = f"{a} {names[0]} and {b} {names[1]}"
    return Turn(question, answer + result, EndsWith(result), key)
