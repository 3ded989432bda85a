"""Questions about a short passage, some of which it does not answer."""

from dataclasses import dataclass

from edge.evaluation.checks import Mentions
from ops.demo.tasks.dialogue import Dialogue, Turn
from ops.demo.tasks.draw import Draw
from ops.demo.tasks.phrases import ask
from ops.demo.tasks.texts import lines
from ops.demo.tasks.words import ANIMALS, COLOURS, FIRST_NAMES, FOODS, HOBBIES, JOBS, PLACES, THINGS, surname, town

NAME = "passages"
MISSING = "The passage does not say."

FRAMES = (
    "{passage}\n{question}",
    "Read this: {passage}\n{question}",
    "Passage: {passage}\nQuestion: {question}",
    "{question}\n{passage}",
    "Text: {passage} {question}",
    "{passage} {question}",
)
MORE = ("And {name}?", "What about {name}?", "And what about {name}?")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fact about a person: how a passage says it, how one asks for it, how one answers."""

    says: tuple[str, ...]
    asks: tuple[str, ...]
    answer: str
    values: tuple[str, ...]


KINDS = {
    "job": Kind(
        lines("""
        {name} works as a {value}.
        {name} is a {value}.
        {name} earns a living as a {value}.
    """),
        lines("""
                    What does {name} do for a living?
                    What is {name}'s job?
                    What does {name} work as?
                """),
        "{name} is a {value}.",
        tuple(JOBS),
    ),
    "town": Kind(
        lines("""
        {name} lives in {value}.
        {name} has a house in {value}.
        The home of {name} is in {value}.
    """),
        lines("""
                     Where does {name} live?
                     In which town does {name} live?
                     Where is {name}'s home?
                 """),
        "{name} lives in {value}.",
        (),
    ),
    "pet": Kind(
        lines("""
        {name} has a {value}.
        {name} keeps a {value}.
        The pet of {name} is a {value}.
    """),
        lines("""
                    What pet does {name} have?
                    Which animal does {name} keep?
                    What is {name}'s pet?
                """),
        "{name} has a {value}.",
        tuple(ANIMALS),
    ),
    "colour": Kind(
        ("{name} likes the colour {value}.", "The favourite colour of {name} is {value}."),
        ("Which colour does {name} like?", "What is {name}'s favourite colour?"),
        "{name} likes {value}.",
        tuple(COLOURS),
    ),
    "hobby": Kind(
        lines("""
        {name} enjoys {value}.
        In the evening {name} loves {value}.
        The hobby of {name} is {value}.
    """),
        lines("""
                      What does {name} enjoy?
                      What is {name}'s hobby?
                      Which hobby does {name} have?
                  """),
        "{name} enjoys {value}.",
        tuple(HOBBIES),
    ),
    "food": Kind(
        ("{name} eats {value} for lunch.", "For lunch {name} takes {value}."),
        ("What does {name} eat for lunch?", "What is {name}'s lunch?"),
        "{name} eats {value}.",
        tuple(FOODS),
    ),
    "age": Kind(
        lines("""
        {name} is {value} years old.
        {name} turned {value} this year.
        The age of {name} is {value}.
    """),
        ("How old is {name}?", "What is {name}'s age?", "Which age does {name} have?"),
        "{name} is {value} years old.",
        tuple(map(str, range(18, 90))),
    ),
    "place": Kind(
        ("{name} put the {thing} in the {value}.", "The {thing} of {name} lies in the {value}."),
        ("Where is {name}'s {thing}?", "Where did {name} leave the {thing}?"),
        "It is in the {value}.",
        tuple(PLACES),
    ),
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One sentence of a passage."""

    name: str
    kind: str
    value: str
    thing: str


def make(draw: Draw) -> Dialogue:
    """One to three turns about two to five facts."""
    key, facts = draw.on_side(lambda: _facts(draw))
    people = sorted({fact.name for fact in facts})
    passage = " ".join(_sentence(draw, fact) for fact in facts)
    fact = draw.one(facts)
    if draw.chance(0.15):
        turns = [_unanswered(draw, facts, people, passage, key)]
    else:
        question = ask(draw, KINDS[fact.kind].asks, name=fact.name, thing=fact.thing)
        turns = [_turn(facts, fact, draw.one(FRAMES).format(passage=passage, question=question), key)]
    others = [other for other in facts if other != fact]
    for other in draw.some(others, min(2, len(others))):
        if draw.chance(0.4):
            turns.append(_follow_up(draw, facts, turns[-1], fact, other, key))
            fact = other
    return Dialogue(NAME, tuple(turns))


def _facts(draw: Draw) -> tuple[str, list[Fact]]:
    people = draw.some(FIRST_NAMES, draw.number(1, 3))
    if draw.chance(0.2):
        people[0] = f"{people[0]} {surname(draw)}"
    kinds = draw.some(tuple(KINDS), draw.number(2, 3))
    pairs = draw.shuffled([(name, kind) for name in people for kind in kinds])[: draw.number(2, 5)]
    facts: list[Fact] = []
    for name, kind in pairs:
        value = town(draw) if kind == "town" else draw.one(KINDS[kind].values)
        facts.append(Fact(name, kind, value, draw.one(THINGS)))
    return f"{NAME} {[(fact.name, fact.kind, fact.value) for fact in facts]}", facts


def _sentence(draw: Draw, fact: Fact) -> str:
    return draw.one(KINDS[fact.kind].says).format(name=fact.name, value=fact.value, thing=fact.thing)


def _turn(facts: list[Fact], fact: Fact, question: str, key: str) -> Turn:
    answer = KINDS[fact.kind].answer.format(name=fact.name, value=fact.value, thing=fact.thing)
    others = {other.value for other in facts} - {fact.value}
    return Turn(question, answer, Mentions((fact.value,), tuple(sorted(others))), key)


def _unanswered(draw: Draw, facts: list[Fact], people: list[str], passage: str, key: str) -> Turn:
    """Asks for a kind of fact that stands there for nobody, or for a person of whom nothing stands there."""
    absent = [kind for kind in KINDS if kind not in {fact.kind for fact in facts}]
    if draw.chance(0.5):
        kind, name = draw.one(absent), draw.one(people)
    else:
        kind, name = (
            draw.one(facts).kind,
            draw.one([name for name in FIRST_NAMES if all(name not in p for p in people)]),
        )
    question = ask(draw, KINDS[kind].asks, name=name, thing=draw.one(THINGS))
    return Turn(draw.one(FRAMES).format(passage=passage, question=question), MISSING, Mentions(("does not say",)), key)


def _follow_up(draw: Draw, facts: list[Fact], before: Turn, last: Fact, fact: Fact, key: str) -> Turn:
    if fact.kind == last.kind and fact.kind != "place" and before.answer != MISSING and draw.chance(0.6):
        question = ask(draw, MORE, name=fact.name)
    else:
        question = ask(draw, KINDS[fact.kind].asks, name=fact.name, thing=fact.thing)
    return _turn(facts, fact, question, key)
