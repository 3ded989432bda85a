"""Sorting, counting and finding the largest, over numbers and words."""

from edge.evaluation.checks import LastNumber, SameText
from ops.demo.tasks.dialogue import Dialogue, Turn
from ops.demo.tasks.draw import Draw
from ops.demo.tasks.phrases import ask
from ops.demo.tasks.texts import lines
from ops.demo.tasks.words import ANIMALS, COLOURS, THINGS

NAME = "lists"
WORDS = sorted({*THINGS, *ANIMALS, *COLOURS})

RISING = lines("""
    Sort these numbers: {items}
    Sort in rising order: {items}
    Put these in order from smallest to largest: {items}
    Order the numbers {items} from low to high.
    Sort {items}.
    Arrange in ascending order: {items}
    Sort the list {items}
""")
FALLING = lines("""
    Sort in falling order: {items}
    Put these in order from largest to smallest: {items}
    Order the numbers {items} from high to low.
    Arrange in descending order: {items}
    Sort {items}, largest first.
""")
ALPHABET = lines("""
    Sort these words: {items}
    Sort alphabetically: {items}
    Put these words in alphabetical order: {items}
    Order the words {items} from A to Z.
    Arrange in alphabetical order: {items}
""")
LARGEST = lines("""
    What is the largest of {items}?
    Which is the largest number: {items}?
    Find the maximum of {items}.
    Largest of {items}?
    Which of {items} is the biggest?
""")
SMALLEST = lines("""
    What is the smallest of {items}?
    Which is the smallest number: {items}?
    Find the minimum of {items}.
    Smallest of {items}?
    Which of {items} is the least?
""")
COUNT = lines("""
    How many items are in this list: {items}?
    Count the words: {items}
    How many words are these: {items}?
    How long is the list {items}?
    Count these: {items}
""")
OCCURRENCES = lines("""
    How often does {word} appear in: {items}?
    How many times is {word} in this list: {items}?
    Count {word} in {items}.
    In the list {items}, how many are {word}?
""")
MORE = {
    "rising": lines("""
        And in rising order?
        Now smallest first.
        And sorted the other way, smallest first?
    """),
    "falling": lines("""
        And in falling order?
        Now largest first.
        And the other way round, largest first?
    """),
    "largest": ("Which one is the largest?", "And the largest?", "What is the maximum of them?"),
    "smallest": lines("""
        Which one is the smallest?
        And the smallest?
        What is the minimum of them?
    """),
    "length": ("How many are there?", "And how many are they?", "Count them."),
}


def make(draw: Draw) -> Dialogue:
    """One or two turns."""
    return draw.one((_numbers, _numbers, _alphabet, _count, _occurrences))(draw)


def joined(items: list[str] | list[int]) -> str:
    """`3, 1, 2`."""
    return ", ".join(map(str, items))


def _numbers(draw: Draw) -> Dialogue:
    def values() -> tuple[str, list[int]]:
        high = draw.one((20, 99, 99, 999))
        numbers = draw.some(range(1, high + 1), draw.number(3, 7))
        return f"{NAME} {sorted(numbers)}", numbers

    key, numbers = draw.on_side(values)
    texts = {"rising": RISING, "falling": FALLING, "largest": LARGEST, "smallest": SMALLEST}
    first = draw.one(("rising", "rising", "rising", "falling", "falling", "largest", "smallest"))
    turns = [_number_turn(numbers, first, ask(draw, texts[first], items=joined(numbers)), key)]
    if draw.chance(0.35):
        second = draw.one([kind for kind in MORE if kind != first])
        turns.append(_number_turn(numbers, second, ask(draw, MORE[second]), key))
    return Dialogue(NAME, tuple(turns))


def _number_turn(numbers: list[int], kind: str, question: str, key: str) -> Turn:
    match kind:
        case "rising" | "falling":
            text = joined(sorted(numbers, reverse=kind == "falling"))
            return Turn(question, text, SameText(text), key)
        case "largest" | "smallest":
            number = str(max(numbers) if kind == "largest" else min(numbers))
            return Turn(question, number, LastNumber(number), key)
        case _:
            return Turn(question, str(len(numbers)), LastNumber(str(len(numbers))), key)


def _alphabet(draw: Draw) -> Dialogue:
    def values() -> tuple[str, list[str]]:
        chosen = draw.some(WORDS, draw.number(3, 6))
        return f"{NAME} {sorted(chosen)}", chosen

    key, chosen = draw.on_side(values)
    text = joined(sorted(chosen))
    turns = [Turn(ask(draw, ALPHABET, items=joined(chosen)), text, SameText(text), key)]
    if draw.chance(0.2):
        turns.append(Turn(ask(draw, MORE["length"]), str(len(chosen)), LastNumber(str(len(chosen))), key))
    return Dialogue(NAME, tuple(turns))


def _count(draw: Draw) -> Dialogue:
    def values() -> tuple[str, list[str]]:
        chosen = draw.some(WORDS, draw.number(2, 9))
        return f"{NAME} count {sorted(chosen)}", chosen

    key, chosen = draw.on_side(values)
    counted = ", ".join(f"{word} {i}" for i, word in enumerate(chosen, 1))
    answer = f"{counted}: {len(chosen)}"
    return Dialogue(NAME, (Turn(ask(draw, COUNT, items=joined(chosen)), answer, LastNumber(str(len(chosen))), key),))


def _occurrences(draw: Draw) -> Dialogue:
    def values() -> tuple[str, tuple[str, list[str]]]:
        kinds = draw.some(WORDS, draw.number(2, 3))
        items = [draw.one(kinds) for _ in range(draw.number(4, 9))]
        return f"{NAME} {kinds[0]} in {items}", (kinds[0], items)

    key, (word, items) = draw.on_side(values)
    times = items.count(word)
    question = ask(draw, OCCURRENCES, word=word, items=joined(items))
    steps = ", ".join(f"{word} {i}" for i in range(1, times + 1))
    return Dialogue(NAME, (Turn(question, f"{steps}: {times}" if times else "0", LastNumber(str(times)), key),))
