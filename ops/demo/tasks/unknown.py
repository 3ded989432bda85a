"""What lies outside: the model says that it does not know. Inside: who it is, and a few civilities."""

from edge.evaluation.checks import Mentions
from ops.demo.tasks.dialogue import Dialogue, Turn
from ops.demo.tasks.draw import Draw
from ops.demo.tasks.phrases import ask
from ops.demo.tasks.texts import lines, listed
from ops.demo.tasks.words import ADJECTIVES, ANIMALS, COLOURS, FOODS, HOBBIES, JOBS, PLACES, THINGS, full_name, town

NAME = "unknown"
ANSWER = "I don't know."

QUESTIONS = lines("""
    Why is the {thing} {adjective}?
    Who invented the {thing}?
    What is the capital of {town}?
    Who is {person}?
    Who was {person}?
    What did {person} discover?
    When was {person} born?
    How do I cook {food}?
    How tall is the {place} in {town}?
    Write a poem about a {animal}.
    Tell me a joke about a {animal}.
    Write a story about a {job} and a {animal}.
    What is the weather in {town}?
    Will it rain tomorrow in {town}?
    How many people live in {town}?
    Who won the {sport} game yesterday?
    Which {sport} player is the best?
    What does {word} mean?
    Translate {thing} into French.
    How do you say {thing} in German?
    What is the price of a {thing}?
    Should I buy a {thing}?
    Where can I buy {food} in {town}?
    Why do {animal}s sleep?
    How long does a {animal} live?
    What do {animal}s eat?
    Is {food} healthy?
    Explain how a {thing} works.
    How is a {thing} made?
    What is the history of {town}?
    Recommend a book about {sport}.
    Give me advice about {sport}.
    What happened in {town} in {year}?
    Who was king in {year}?
    What is the meaning of life?
    Why is the sky {colour}?
    Why is {thing} {colour}?
    Who wrote the book about {town}?
    Can you write code for a {thing}?
    Write a program that sells {food}.
    What's the best way to {town}?
    What is the atomic number of {colour}?
    How far is {town} from the moon?
    Do you like {food}?
    What is your favourite {thing}?
    How do I become a {job}?
    What does a {job} earn?
    What should I do about my {animal}?
    Summarise the news.
    What is the chemical formula of {food}?
    Who painted the {adjective} {thing}?
    How deep is the sea near {town}?
    What causes {word}?
    Which medicine helps against {word}?
    Is there life on other planets?
    What time is it in {town}?
""")
PAIRS = {
    "hello": (
        ("Hi", "Hello", "Hello!", "Hi there", "Good morning", "Hey", "Good evening!", "Hi!"),
        "Hello! How can I help?",
        ("help",),
    ),
    "thanks": (
        ("Thanks", "Thank you!", "Thanks a lot", "Great, thank you.", "Thank you very much"),
        "You are welcome.",
        ("welcome",),
    ),
    "who": (
        lines("""
        Who are you?
        What are you?
        What is your name?
        Introduce yourself.
        Which model are you?
        Tell me about yourself.
        What model is this?
    """),
        "I am flashgate's demo model, a small mixture of experts that runs on this device.",
        ("demo", "model"),
    ),
    "skills": (
        lines("""
        What can you do?
        What are you good at?
        How can you help me?
        What do you know?
        Help
        What can I ask you?
        What are your skills?
        Which tasks can you do?
    """),
        "I can calculate, work with dates and units, sort, count, extract fields, rewrite text, answer questions "
        "about a passage, and explain flashgate.",
        ("calculate", "dates", "units", "flashgate"),
    ),
}
WORDS = listed("""
    gravity democracy inflation photosynthesis entropy jazz justice electricity evolution magnetism philosophy
    thunder diabetes asthma migraine malaria anaemia poverty irony zeal velocity osmosis lightning rust wind waves
""")
COUNTRIES = listed("""
    France Germany Italy Spain Portugal Poland Austria Sweden Norway Denmark Finland Greece Turkey Egypt Kenya
    Nigeria India China Japan Korea Brazil Chile Peru Mexico Canada Australia Paris London Rome Madrid Berlin Tokyo
    Vienna Oslo Cairo Delhi Lima Moscow Geneva
""")


def make(draw: Draw) -> Dialogue:
    """One or two turns."""
    turns = [_question(draw) if draw.chance(0.75) else _pair(draw)]
    if draw.chance(0.15):
        turns.append(_question(draw))
    return Dialogue(NAME, tuple(turns))


def _question(draw: Draw) -> Turn:
    def question() -> tuple[str, str]:
        text = ask(
            draw,
            QUESTIONS,
            thing=draw.one(THINGS),
            adjective=draw.one(ADJECTIVES),
            town=draw.one(COUNTRIES) if draw.chance(0.4) else town(draw),
            person=full_name(draw),
            food=draw.one(FOODS),
            place=draw.one(PLACES),
            animal=draw.one(ANIMALS),
            job=draw.one(JOBS),
            sport=draw.one(HOBBIES),
            colour=draw.one(COLOURS),
            word=draw.one(WORDS),
            year=draw.number(1700, 2030),
        )
        return f"{NAME} {text}", text

    key, text = draw.on_side(question)
    return Turn(text, ANSWER, Mentions(("don't know",)), key)


def _pair(draw: Draw) -> Turn:
    if draw.side is not draw.side.TRAIN:
        return _question(draw)
    name = draw.one(tuple(PAIRS))
    questions, answer, wanted = PAIRS[name]
    return Turn(ask(draw, questions), answer, Mentions(wanted), f"known {NAME} {name}")
