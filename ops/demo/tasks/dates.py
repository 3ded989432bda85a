"""Weekdays, days between two dates and dates some days later, in a year that is no leap year."""

from edge.evaluation.checks import EndsWith, LastNumber
from ops.demo.tasks.dialogue import Dialogue, Turn
from ops.demo.tasks.draw import Draw
from ops.demo.tasks.phrases import ask
from ops.demo.tasks.texts import lines
from ops.demo.tasks.words import MONTHS, WEEKDAYS

NAME = "dates"
LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

IN_DAYS = lines("""
    Today is {day}. What day is it in {n} days?
    If today is {day}, what weekday is it {n} days later?
    What day of the week comes {n} days after {day}?
    It is {day}. Which weekday is it in {n} days?
    {day} plus {n} days is which weekday?
    Which day is {n} days after a {day}?
""")
DAYS_AGO = lines("""
    Today is {day}. What day was it {n} days ago?
    What weekday was {n} days before {day}?
    If it is {day} now, which weekday was it {n} days ago?
""")
BETWEEN = lines("""
    How many days are there from {a} to {b}?
    How many days lie between {a} and {b}?
    Count the days from {a} to {b}.
    From {a} until {b}, how many days is that?
    It's {a}. How many days until {b}?
    Days between {a} and {b}?
""")
LATER = lines("""
    What date is {n} days after {a}?
    Which date comes {n} days after {a}?
    Add {n} days to {a}.
    It is {a}. What is the date in {n} days?
    {a} plus {n} days?
    What's the date {n} days after {a}?
""")
ANCHORED = lines("""
    If {a} is a {day}, what weekday is {b}?
    {a} is a {day}. Which day of the week is {b}?
    Given that {a} falls on a {day}, on what weekday does {b} fall?
""")
LENGTH = lines("""
    How many days does {month} have?
    How long is {month} in days?
    Number of days in {month}?
""")
MORE_DAYS = lines("""
    And {n} days after that?
    And {n} days later?
    What about {n} more days?
    Then {n} days on?
""")
MORE_DATES = lines("""
    And {n} days after that?
    And {n} days later?
    Now add {n} days.
    Plus another {n} days?
""")


def make(draw: Draw) -> Dialogue:
    """One or two turns."""
    kind = draw.one((_weekday, _weekday, _later, _later, _between, _anchored, _month))
    return Dialogue(NAME, kind(draw))


def _weekday(draw: Draw) -> tuple[Turn, ...]:
    back = draw.chance(0.3)

    def values(first: int | None = None) -> tuple[str, tuple[int, int]]:
        day, n = draw.number(0, 6) if first is None else first, draw.number(2, 60)
        return f"{NAME} weekday {day} {back} {n}", (day, n)

    def turn(key: str, day: int, n: int, questions: tuple[str, ...]) -> Turn:
        question = ask(draw, questions, day=WEEKDAYS[day], n=n)
        return Turn(question, _weekday_answer(day, n, back), EndsWith(_shifted(day, n, back)), key)

    key, (day, n) = draw.on_side(values)
    turns = [turn(key, day, n, DAYS_AGO if back else IN_DAYS)]
    if not back and draw.chance(0.3) and (more := draw.maybe_on_side(lambda: values((day + n) % 7))):
        turns.append(turn(more[0], *more[1], MORE_DAYS))
    return tuple(turns)


def _shifted(day: int, n: int, back: bool) -> str:
    return WEEKDAYS[(day - n if back else day + n) % 7]


def _weekday_answer(day: int, n: int, back: bool = False) -> str:
    weeks, days = divmod(n, 7)
    steps = f"{n} = 7 × {weeks} + {days}. " if weeks else ""
    return f"{steps}{WEEKDAYS[day]} {'-' if back else '+'} {days} = {_shifted(day, n, back)}"


def date(day: int, month: int) -> str:
    """`14 March`."""
    return f"{day} {MONTHS[month]}"


def _any_date(draw: Draw) -> tuple[int, int]:
    month = draw.number(0, 11)
    return draw.number(1, LENGTHS[month]), month


def _later(draw: Draw) -> tuple[Turn, ...]:
    def values(first: tuple[int, int] | None = None) -> tuple[str, tuple[int, int, int]]:
        (day, month), n = first or _any_date(draw), draw.number(2, 30)
        return f"{NAME} later {day} {month} {n}", (day, month, n)

    def turn(key: str, day: int, month: int, n: int, questions: tuple[str, ...]) -> Turn:
        steps, *end = _add(day, month, n)
        return Turn(ask(draw, questions, a=date(day, month), n=n), steps, EndsWith(date(*end)), key)

    key, (day, month, n) = draw.on_side(values)
    turns = [turn(key, day, month, n, LATER)]
    following = _add(day, month, n)[1:]
    if draw.chance(0.3) and (more := draw.maybe_on_side(lambda: values(following))):
        turns.append(turn(more[0], *more[1], MORE_DATES))
    return tuple(turns)


def _add(day: int, month: int, n: int) -> tuple[str, int, int]:
    """The steps, ending in the date, and the date."""
    total, length = day + n, LENGTHS[month]
    steps = f"{day} + {n} = {total}"
    if total <= length:
        return f"{steps}: {date(total, month)}", total, month
    following = (month + 1) % 12
    left = total - length
    return (
        f"{steps}, {MONTHS[month]} has {length}, {total} - {length} = {left}: {date(left, following)}",
        left,
        following,
    )


def _between(draw: Draw) -> tuple[Turn, ...]:
    def values() -> tuple[str, tuple[int, int, int, int]]:
        day, month = _any_date(draw)
        other = min(month + draw.number(0, 1), 11)
        to = draw.number(1, LENGTHS[other])
        return f"{NAME} between {day} {month} {to} {other}", (day, month, to, other)

    while True:
        key, (day, month, to, other) = draw.on_side(values)
        if month != other or day < to:
            break
    question = ask(draw, BETWEEN, a=date(day, month), b=date(to, other))
    steps, days = _count(day, month, to, other)
    return (Turn(question, steps, LastNumber(str(days)), key),)


def _count(day: int, month: int, to: int, other: int) -> tuple[str, int]:
    """The steps, ending in the number of days, and that number. `other` is the same month or the next."""
    if month == other:
        return f"{to} - {day} = {to - day}", to - day
    left = LENGTHS[month] - day
    return (
        f"{MONTHS[month]}: {LENGTHS[month]} - {day} = {left}, {MONTHS[other]}: {to}, {left} + {to} = {left + to}",
        left + to,
    )


def _anchored(draw: Draw) -> tuple[Turn, ...]:
    def values() -> tuple[str, tuple[int, int, int, int]]:
        month = draw.number(0, 11)
        first, second = sorted(draw.some(range(1, LENGTHS[month] + 1), 2))
        day = draw.number(0, 6)
        return f"{NAME} anchored {first} {second} {month} {day}", (first, second, month, day)

    key, (first, second, month, day) = draw.on_side(values)
    question = ask(draw, ANCHORED, a=date(first, month), b=date(second, month), day=WEEKDAYS[day])
    n = second - first
    answer = f"{second} - {first} = {n}. {_weekday_answer(day, n)}"
    return (Turn(question, answer, EndsWith(_shifted(day, n, back=False)), key),)


def _month(draw: Draw) -> tuple[Turn, ...]:
    """What is known by heart; for the examination a sum of days with it."""
    if draw.side is not draw.side.TRAIN:
        return _later(draw)
    month = draw.number(0, 11)
    answer = f"{MONTHS[month]} has {LENGTHS[month]} days."
    key = f"known {NAME} length {month}"
    return (Turn(ask(draw, LENGTH, month=MONTHS[month]), answer, LastNumber(str(LENGTHS[month])), key),)
