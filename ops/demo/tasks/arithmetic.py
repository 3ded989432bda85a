"""Sums, differences, products and quotients of whole numbers, with the steps where a product or quotient needs them."""

from dataclasses import dataclass

from edge.evaluation.checks import LastNumber
from ops.demo.tasks.dialogue import Dialogue, Turn
from ops.demo.tasks.draw import KNOWN, Draw
from ops.demo.tasks.phrases import ask
from ops.demo.tasks.texts import lines
from ops.demo.tasks.words import THINGS, first_name

NAME = "arithmetic"
TABLES = 12  # what one knows by heart goes up to here
AT_ONCE = 99  # sums and differences up to here need no steps

QUESTIONS = {
    "+": lines("""
        What is {a} + {b}?
        {a} + {b} = ?
        {a}+{b}
        Add {a} and {b}.
        How much is {a} plus {b}?
        What's the sum of {a} and {b}?
        Calculate {a} + {b}.
        Compute {a} plus {b}.
        {a} plus {b}?
        Can you add {b} to {a}?
        What do {a} and {b} make together?
        Tell me {a} + {b}.
    """),
    "-": lines("""
        What is {a} - {b}?
        {a} - {b} = ?
        {a}-{b}
        Subtract {b} from {a}.
        How much is {a} minus {b}?
        What's the difference between {a} and {b}?
        Calculate {a} - {b}.
        Take {b} away from {a}.
        {a} minus {b}?
        Compute {a} minus {b}.
        What is left of {a} when you take {b}?
    """),
    "×": lines("""
        What is {a} × {b}?
        {a} * {b} = ?
        {a}*{b}
        Multiply {a} by {b}.
        How much is {a} times {b}?
        What's the product of {a} and {b}?
        Calculate {a} × {b}.
        {a} times {b}?
        {a} x {b}
        Compute {a} times {b}.
    """),
    "÷": lines("""
        What is {a} ÷ {b}?
        {a} / {b} = ?
        {a}/{b}
        Divide {a} by {b}.
        How much is {a} divided by {b}?
        Calculate {a} ÷ {b}.
        How often does {b} go into {a}?
        {a} divided by {b}?
        Compute {a} divided by {b}.
    """),
}

STORIES = {
    "+": lines("""
        {name} has {a} {things} and buys {b} more. How many {things} does {name} have now?
        There are {a} {things} in one box and {b} in another. How many are there in all?
        {name} sold {a} {things} on Monday and {b} on Tuesday. How many in total?
    """),
    "-": lines("""
        {name} had {a} {things} and gave away {b}. How many are left?
        A shop has {a} {things} and sells {b}. How many {things} remain?
        Of {a} {things}, {b} broke. How many are whole?
    """),
    "×": (
        "{name} buys {a} boxes of {b} {things}. How many {things} is that?",
        "There are {a} rows with {b} {things} each. How many in all?",
    ),
    "÷": (
        "{name} shares {a} {things} evenly among {b} friends. How many does each get?",
        "{a} {things} are packed into {b} equal boxes. How many are in each box?",
    ),
}

FOLLOW_UPS = {
    "+": lines("""
        And if you add {b} to that?
        Now add {b}.
        Plus {b}?
        Add {b} to the result.
        And {b} more?
    """),
    "-": lines("""
        And if you take {b} from that?
        Now subtract {b}.
        Minus {b}?
        Subtract {b} from the result.
    """),
    "×": ("Now times {b}.", "Multiply that by {b}.", "And {b} times that?"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Two numbers and the sign between them."""

    a: int
    sign: str
    b: int

    @property
    def result(self) -> int:
        """Whole: quotients are drawn so."""
        match self.sign:
            case "+":
                return self.a + self.b
            case "-":
                return self.a - self.b
            case "×":
                return self.a * self.b
            case _:
                return self.a // self.b

    @property
    def key(self) -> str:
        """The numbers in order of size: whoever learned 3 + 5 also knows 5 + 3, and 8 ÷ 5 from 5 × 8."""
        a, b = (self.result, self.b) if self.sign == "÷" else (self.a, self.b)
        sign = "×" if self.sign == "÷" else self.sign
        known = KNOWN if max(a, b) <= TABLES else ""
        return f"{known}{NAME} {a}-{b}" if sign == "-" else f"{known}{NAME} {min(a, b)}{sign}{max(a, b)}"

    def answer(self) -> str:
        """The result, after the steps that a person would write down."""
        line = f"{self.a} {self.sign} {self.b} = "
        if self.sign == "×" and max(self.a, self.b) > TABLES:
            return line + _product_steps(min(self.a, self.b), max(self.a, self.b)) + str(self.result)
        if self.sign == "÷" and self.result > TABLES:
            return _quotient_steps(self) + line + str(self.result)
        if self.sign in "+-" and max(self.a, self.b) > AT_ONCE:
            return f"{_digit_steps(self)}, so {line}{self.result}"
        return line + str(self.result)


def _product_steps(small: int, large: int) -> str:
    tens, ones = large // 10 * 10, large % 10
    if not ones:
        return ""
    return f"{small} × {tens} + {small} × {ones} = {small * tens} + {small * ones} = "


def _quotient_steps(problem: Problem) -> str:
    tens, ones = problem.result // 10 * 10, problem.result % 10
    if not ones:
        return ""
    part = problem.b * tens
    rest = problem.a - part
    return f"{problem.b} × {tens} = {part}, {problem.a} - {part} = {rest}, {problem.b} × {ones} = {rest}, so "


def _digit_steps(problem: Problem) -> str:
    """Place by place from the ones: a carry or a borrowed ten stands as the last 1."""
    steps, carry, a, b = [], 0, problem.a, problem.b
    while a or b:
        (a, digit), (b, other) = divmod(a, 10), divmod(b, 10)
        mark = f" {problem.sign} 1" if carry else ""
        if problem.sign == "+":
            result = digit + other + carry
            carry = result // 10
        else:
            borrowed = int(digit < other + carry)
            digit += 10 * borrowed
            result = digit - other - carry
            carry = borrowed
        steps.append(f"{digit} {problem.sign} {other}{mark} = {result}")
    return ", ".join(steps)


def make(draw: Draw) -> Dialogue:
    """One to three turns."""
    ask_first = _story if draw.chance(0.2) else _plain
    first = _fresh(draw)
    turns, result = [_turn(first, ask_first(draw, first))], first.result
    while len(turns) < 3 and draw.chance(0.35) and 0 <= result <= 999:
        problem = _problem(draw, draw.one("+-×" if result < 100 else "+-"), first=result)
        if problem is None:
            break
        turns.append(_turn(problem, ask(draw, FOLLOW_UPS[problem.sign], b=problem.b)))
        result = problem.result
    return Dialogue(NAME, tuple(turns))


def _plain(draw: Draw, problem: Problem) -> str:
    return ask(draw, QUESTIONS[problem.sign], a=problem.a, b=problem.b)


def _story(draw: Draw, problem: Problem) -> str:
    name, things = first_name(draw), draw.one(THINGS) + "s"
    return ask(draw, STORIES[problem.sign], a=problem.a, b=problem.b, name=name, things=things)


def _turn(problem: Problem, question: str) -> Turn:
    return Turn(question, problem.answer(), LastNumber(str(problem.result)), problem.key)


def _fresh(draw: Draw) -> Problem:
    while True:
        problem = _problem(draw, draw.one("++--××÷"))
        if problem:
            return problem


def _problem(draw: Draw, sign: str, first: int | None = None) -> Problem | None:
    """A problem of this draw's side; None if `first` has none that is easy enough."""
    for _ in range(50):
        problem = _any_problem(draw, sign, first)
        if problem and draw.is_mine(problem.key):
            return problem
    return None


def _any_problem(draw: Draw, sign: str, first: int | None) -> Problem | None:
    if sign in "+-":
        high = draw.one((20, 99, 99, 999))
        a = draw.number(0, high) if first is None else first
        b = draw.number(1, draw.one((20, 99, high)))
        return Problem(a, sign, b) if sign == "+" or a >= b else None
    small, large = draw.number(2, 12), draw.number(2, draw.one((12, 99)))
    if sign == "÷":
        return Problem(small * large, "÷", small)
    if first is not None:
        return Problem(first, "×", small)
    return Problem(*draw.one(((small, "×", large), (large, "×", small))))
