"""A short text rewritten by a rule."""

from collections.abc import Callable

from edge.evaluation.checks import SameText
from ops.demo.tasks.dialogue import Dialogue, Turn
from ops.demo.tasks.draw import Draw
from ops.demo.tasks.phrases import ask
from ops.demo.tasks.texts import lines
from ops.demo.tasks.words import ADJECTIVES, ANIMALS, COLOURS, FIRST_NAMES, JOBS, PLACES, THINGS, VERBS

NAME = "rewriting"

RULES: dict[str, tuple[Callable[[str], str], tuple[str, ...], tuple[str, ...]]] = {
    "upper": (
        str.upper,
        (
            "Write in upper case: {text}",
            "Make this upper case: {text}",
            "Turn into capital letters: {text}",
            "Convert to upper case: {text}",
            "{text}\nRewrite this in capitals.",
        ),
        ("Now in upper case.", "And in capital letters?"),
    ),
    "lower": (
        str.lower,
        (
            "Write in lower case: {text}",
            "Make this lower case: {text}",
            "Turn into small letters: {text}",
            "Convert to lower case: {text}",
            "{text}\nRewrite this without capitals.",
        ),
        ("Now in lower case.", "And in small letters?"),
    ),
    "reverse": (
        lambda text: " ".join(text.split()[::-1]),
        (
            "Reverse the order of the words: {text}",
            "Write the words backwards: {text}",
            "Reverse the words of: {text}",
            "{text}\nPut the words in reverse order.",
            "Say it with the last word first: {text}",
        ),
        ("Now reverse the words.", "And with the words in reverse order?"),
    ),
    "hyphens": (
        lambda text: "-".join(text.split()),
        lines("""
            Join the words with hyphens: {text}
            Put hyphens between the words: {text}
            Replace the spaces by hyphens: {text}
        """),
        ("Now with hyphens between the words.", "And joined with hyphens?"),
    ),
    "first": (
        lambda text: text.split()[0],
        lines("""
            What is the first word of: {text}
            Give me only the first word: {text}
            First word of "{text}"?
        """),
        ("What is the first word?", "Only the first word, please."),
    ),
    "last": (
        lambda text: text.split()[-1],
        lines("""
            What is the last word of: {text}
            Give me only the last word: {text}
            Last word of "{text}"?
        """),
        ("What is the last word?", "Only the last word, please."),
    ),
}
REPLACE = (
    "Replace {old} by {new}: {text}",
    'Replace "{old}" with "{new}" in: {text}',
    "Change {old} to {new}: {text}",
    "{text}\nWrite {new} instead of {old}.",
    "Put {new} for {old} in: {text}",
)
REPLACE_MORE = lines("""
    Now replace {old} by {new}.
    And with {new} instead of {old}?
    Change {old} to {new}.
""")
REPEAT = ("Repeat after me: {text}", "Repeat: {text}", "Say: {text}", "Write exactly this: {text}", 'Echo "{text}"')


def make(draw: Draw) -> Dialogue:
    """One or two turns: a second rule is applied to the first one's result."""
    key, text = draw.on_side(lambda: _text(draw))
    pairs = [draw.one((_rule, _rule, _rule, _rule, _replace, _replace, _repeat))(draw, text, is_first=True)]
    result = pairs[0][1]
    if draw.chance(0.35) and " " in result:
        pairs.append(draw.one((_rule, _replace))(draw, result, is_first=False))
    return Dialogue(NAME, tuple(Turn(question, answer, SameText(answer), key) for question, answer in pairs))


def _text(draw: Draw) -> tuple[str, str]:
    """A phrase of three to eight words, and its key."""
    subject = draw.one(
        (draw.one(FIRST_NAMES), f"the {draw.one(JOBS)}", f"the {draw.one(ADJECTIVES)} {draw.one(ANIMALS)}")
    )
    what = draw.one((f"{draw.one(ADJECTIVES)} ", f"{draw.one(COLOURS)} ", "")) + draw.one(THINGS)
    text = draw.one(
        (
            f"{subject} {draw.one(VERBS)} the {what}",
            f"{subject} {draw.one(VERBS)} a {what} in the {draw.one(PLACES)}",
            f"the {what} is in the {draw.one(PLACES)}",
            " ".join(draw.some(THINGS, draw.number(3, 6))),
        )
    )
    return f"{NAME} {text}", text[0].upper() + text[1:] if draw.chance(0.4) else text


def _rule(draw: Draw, text: str, *, is_first: bool) -> tuple[str, str]:
    rule, first, more = RULES[draw.one(tuple(RULES))]
    return ask(draw, first if is_first else more, text=text), rule(text)


def _replace(draw: Draw, text: str, *, is_first: bool) -> tuple[str, str]:
    words = text.split()
    old, new = draw.one(words), draw.one(THINGS)
    question = ask(draw, REPLACE if is_first else REPLACE_MORE, text=text, old=old, new=new)
    return question, " ".join(new if word == old else word for word in words)


def _repeat(draw: Draw, text: str, *, is_first: bool) -> tuple[str, str]:
    return ask(draw, REPEAT if is_first else ("Repeat that.",), text=text), text
