"""What flashgate's tags, floors, lanes and reasons mean, by the router's own tables (router/privacy, router/policy)."""

from edge.evaluation.checks import Mentions
from ops.demo.tasks.dialogue import Dialogue, Turn
from ops.demo.tasks.draw import Draw
from ops.demo.tasks.phrases import ask
from ops.demo.tasks.texts import lines, listed
from ops.demo.tasks.words import words

NAME = "flashgate"

DEVICE_TAGS = listed("""
    phi pii pci privileged secret confidential credentials financial legal hr biometric genetic location minor
    restricted trade_secret
""")
REACHES = {"public": "cloud", "internal": "fleet", **dict.fromkeys(DEVICE_TAGS, "device")}
ORDER = ("device", "fleet", "cloud_masked", "cloud")
UNKNOWN_TAGS = listed("""
    phy blue private_ topsecret urgent draft misc patient lab beta foo test vip hidden medical mine
""")

MEANING = {
    "device": "it stays on the device",
    "fleet": "it may reach machines of the same owner, never the cloud",
    "cloud": "it may use the cloud",
}

TAG = lines("""
    What does the tag {tag} mean?
    What does the tag {tag} allow?
    How far may a request tagged {tag} travel?
    How far does {tag} let a request go?
    Explain the tag {tag}.
    What happens to a request with the tag {tag}?
    Where may a request tagged {tag} go?
    What is the floor of the tag {tag}?
    tag {tag}?
""")
MAY_CLOUD = lines("""
    May a request tagged {tag} use the cloud?
    Can a request with the tag {tag} go to the cloud?
    Does {tag} allow the cloud?
    Will a request tagged {tag} leave for the cloud?
    Is the cloud allowed for the tag {tag}?
""")
SEVERAL = lines("""
    What is the floor of a request with the tags {tags}?
    How far may a request with the tags {tags} go?
    A request has the tags {tags}. What is its floor?
    Tags {tags}: which floor?
    Which floor do the tags {tags} give?
""")
MORE_TAG = ("And {tag}?", "What about {tag}?", "And the tag {tag}?")

FACTS = {
    "lanes": (
        lines("""
        Which lanes are there?
        What lanes does flashgate have?
        What is a lane?
        Name the lanes.
    """),
        "There are two lanes: edge, the device you own, and cloud.",
        ("edge", "cloud"),
    ),
    "edge": (
        lines("""
        What is the edge lane?
        What does the edge node do?
        Explain the edge.
        What is the lane edge?
    """),
        "The edge answers on a device you own, with a model whose experts stream from the SSD.",
        ("device", "experts"),
    ),
    "cloud": (
        lines("""
        What is the cloud lane?
        When is the cloud used?
        Explain the lane cloud.
        What is the lane cloud?
    """),
        "The cloud answers only what the floor allows to leave.",
        ("floor",),
    ),
    "flashgate": (
        lines("""
        What is flashgate?
        What does flashgate do?
        Explain flashgate.
        Tell me about flashgate.
    """),
        "flashgate is a gateway that keeps private requests on a device you own and lets the rest use the cloud.",
        ("gateway", "private", "cloud"),
    ),
    "floor": (
        lines("""
        What is the floor?
        What does floor mean?
        Explain the privacy floor.
        What is a privacy floor?
    """),
        "The floor is the furthest reach that a request is allowed: the lowest that its tags, its text, the policy or "
        "its caller name.",
        ("furthest", "lowest"),
    ),
    "order": (
        lines("""
        What floors are there?
        Which reaches are there?
        In which order are the floors?
        List the floors.
    """),
        "From nearest to furthest: device, fleet, cloud_masked, cloud.",
        ("device", "fleet", "cloud_masked", "cloud"),
    ),
    "unknown": (
        lines("""
        What does an unknown tag do?
        What if a tag is not known?
        What happens with unknown tags?
    """),
        "An unknown tag counts as device: the request stays on the device.",
        ("device",),
    ),
    "untagged": (
        lines("""
        What if a request has no tag?
        What happens without tags?
        Where does an untagged request go?
    """),
        "Without tags the policy's untagged reach holds, else cloud.",
        ("policy", "cloud"),
    ),
    "identifiers": (
        lines("""
        Which identifiers are found?
        What is detected in the text?
        What identifiers keep a request here?
    """),
        "E-mail addresses, phone numbers, IBANs, payment cards, social security numbers, IP addresses and keys keep a "
        "request on the device.",
        ("IBANs", "device"),
    ),
    "names": (
        lines("""
        Are names detected?
        Does flashgate find names?
        Are postal addresses found?
    """),
        "No. Names and postal addresses are not found: tag those requests.",
        ("not", "tag"),
    ),
    "permit": (
        ("What is a permit?", "Why does a send need a permit?", "Explain the permit."),
        "Every send needs a permit that only the floor mints, for these bytes, one backend, one request, once.",
        ("floor", "once"),
    ),
    "late_but_private": (
        lines("""
        What does late_but_private mean?
        Explain the reason late_but_private.
        Why late_but_private?
    """),
        "The edge will be late, but the floor keeps the request there.",
        ("late", "floor"),
    ),
    "edge_too_slow": (
        lines("""
        What does edge_too_slow mean?
        Explain the reason edge_too_slow.
        Why edge_too_slow?
    """),
        "The edge cannot keep the caller's latency bounds, so the cloud answers.",
        ("latency", "cloud"),
    ),
    "edge_down": (
        ("What does edge_down mean?", "Explain the reason edge_down.", "Why edge_down?"),
        "The edge is down, so the cloud answers if the floor allows it.",
        ("down", "cloud"),
    ),
    "edge_busy": (
        ("What does edge_busy mean?", "Explain the reason edge_busy.", "Why edge_busy?"),
        "Half of the edge's queue is full, so the cloud is preferred.",
        ("queue", "cloud"),
    ),
    "edge_unmeasured": (
        lines("""
        What does edge_unmeasured mean?
        Explain the reason edge_unmeasured.
        Why edge_unmeasured?
    """),
        "The edge has not been seen to answer yet, so it is assumed to be slow.",
        ("assumed", "slow"),
    ),
    "private": (
        lines("""
        What does the reason private mean?
        Explain the rule private.
        Why was the reason private given?
    """),
        "The floor is device or fleet, so the edge answers.",
        ("device", "fleet", "edge"),
    ),
    "long_prompt": (
        lines("""
        What does long_prompt mean?
        Explain the reason long_prompt.
        Why long_prompt?
    """),
        "The prompt is so long that it would keep the edge busy, so the cloud is preferred.",
        ("prompt", "cloud"),
    ),
    "strict": (
        ("What does strict do?", "What happens to a strict request?", "Explain strict."),
        "A strict request is refused when it would be late.",
        ("refused", "late"),
    ),
    "logs": (
        lines("""
        Are prompts logged?
        Does flashgate log my prompts?
        Who can read prompts in the logs?
    """),
        "No. No metric, log line or error holds a word of a prompt or an answer.",
        ("no",),
    ),
}


def make(draw: Draw) -> Dialogue:
    """One or two turns."""
    kind = draw.one((_one_tag, _one_tag, _several, _several, _fact, _fact))
    return Dialogue(NAME, kind(draw))


def floor(tags: list[str]) -> str:
    """The lowest reach of all; a tag that nobody knows counts as device."""
    return min((REACHES.get(tag, "device") for tag in tags), key=ORDER.index)


def _any_tag(draw: Draw) -> str:
    return draw.one((draw.one(DEVICE_TAGS), draw.one(DEVICE_TAGS), "public", "internal", draw.one(UNKNOWN_TAGS)))


def _one_tag(draw: Draw) -> tuple[Turn, ...]:
    """By heart, so what is held out is the wording."""
    questions, answer_of = draw.one(((MAY_CLOUD, _may_cloud), (TAG, _meaning), (TAG, _meaning)))

    def asked(templates: tuple[str, ...]) -> tuple[str, tuple[str, str]]:
        tag = _any_tag(draw)
        question = ask(draw, templates, tag=tag)
        return f"{NAME} {question}", (tag, question)

    key, (tag, question) = draw.on_side(lambda: asked(questions))
    turns = [answer_of(tag, question, key)]
    if draw.chance(0.3):
        key, (tag, question) = draw.on_side(lambda: asked(MORE_TAG))
        turns.append(answer_of(tag, question, key))
    return tuple(turns)


def _meaning(tag: str, question: str, key: str) -> Turn:
    reach = floor([tag])
    known = "" if tag in REACHES else "is unknown, so it counts as device: "
    text = f"{tag} {known}{MEANING[reach]}." if known else f"{tag} is {reach}: {MEANING[reach]}."
    wanted = {"device": ("device",), "fleet": ("same owner",), "cloud": ("may use the cloud",)}[reach]
    return Turn(question, text, Mentions((tag, *wanted)), key)


def _may_cloud(tag: str, question: str, key: str) -> Turn:
    reach = floor([tag])
    known = "" if tag in REACHES else "unknown, so "
    text = f"Yes, {tag} is cloud." if reach == "cloud" else f"No, {tag} is {known}{reach}."
    return Turn(question, text, Mentions(("yes",) if reach == "cloud" else ("no", reach)), key)


def _several(draw: Draw) -> tuple[Turn, ...]:
    def tags() -> tuple[str, list[str]]:
        chosen = sorted({_any_tag(draw) for _ in range(draw.number(2, 4))})
        return f"{NAME} floor of {chosen}", draw.shuffled(chosen)

    key, chosen = draw.on_side(tags)
    reaches = ", ".join(f"{tag} is {REACHES.get(tag, 'unknown, so device')}" for tag in chosen)
    answer = f"{reaches}. The lowest is {floor(chosen)}."
    check = Mentions((f"lowest is {floor(chosen)}",))
    return (Turn(ask(draw, SEVERAL, tags=words(chosen)), answer, check, key),)


def _fact(draw: Draw) -> tuple[Turn, ...]:
    def asked() -> tuple[str, tuple[str, str]]:
        name = draw.one(tuple(FACTS))
        question = ask(draw, FACTS[name][0])
        return f"{NAME} {question}", (name, question)

    key, (name, question) = draw.on_side(asked)
    _, answer, wanted = FACTS[name]
    return (Turn(question, answer, Mentions(wanted), key),)
