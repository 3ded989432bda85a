"""Fields of a short clinic note or invoice, as JSON or one at a time."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge.evaluation.checks import Mentions, SameJson
from ops.demo.tasks.dates import LENGTHS, date
from ops.demo.tasks.dialogue import Dialogue, Turn
from ops.demo.tasks.draw import Draw
from ops.demo.tasks.phrases import ask
from ops.demo.tasks.texts import lines
from ops.demo.tasks.words import (
    ALLERGIES,
    ARTICLES,
    COMPLAINTS,
    CURRENCIES,
    DRUGS,
    company,
    full_name,
)

NAME = "records"
MISSING = "The record does not say."

Value = str | int | None


@dataclass(frozen=True, slots=True)
class Record:
    """What a text says of some fields. A field that it does not mention is None."""

    text: str
    fields: Mapping[str, Value]

    @property
    def key(self) -> str:
        """All values."""
        return f"{NAME} {list(self.fields.values())}"


ALL = (
    "Extract the fields as JSON: {text}",
    "Extract {names} as JSON: {text}",
    "{text}\nExtract {names} as JSON.",
    "{text}\nGive me {names} as JSON.",
    "Turn this {kind} into JSON: {text}",
    "Return JSON with {names}. {text}",
    "{kind_title}: {text}\nReturn {names} as JSON.",
    "Put this into JSON: {text}",
    "Read the {kind} and extract its fields as JSON.\n{text}",
    "JSON please: {text}",
    "{text}",  # what else to do with a record?
)
SOME = (
    "Extract {names} as JSON: {text}",
    "{text}\nExtract {names} as JSON.",
    "{text}\nGive me only {names} as JSON.",
    "Return JSON with {names}: {text}",
    "From this {kind} extract {names} as JSON: {text}",
    "{kind_title}: {text}\nJSON with {names}, please.",
)
ONE = (
    "{text}\nWhat is the {name}?",
    "What is the {name} in this {kind}? {text}",
    "{text}\nTell me the {name}.",
    "Find the {name}: {text}",
    "{kind_title}: {text}\nWhich {name} does it give?",
)
MORE = lines("""
    What is the {name}?
    And the {name}?
    Which {name} was it?
    Tell me the {name}.
    {name}?
""")
MORE_JSON = lines("""
    Now only {names} as JSON.
    And just {names}, as JSON.
    Give me {names} as JSON.
""")

NOTE_OPENINGS = {
    (True, True): (
        "{patient}, born {born}, ",
        "Patient {patient} (born {born}) ",
        "Patient: {patient}, born {born}. The patient ",
        "The patient {patient}, born {born}, ",
        "Seen today: {patient}, year of birth {born}. The patient ",
    ),
    (True, False): ("{patient} ", "Patient {patient} ", "The patient {patient} "),
    (False, True): ("The patient, born {born}, ", "Patient, born {born}, ", "A patient born in {born} "),
}
COMPLAINT = lines("""
    has {article}{complaint}
    complains of {complaint}
    reports {complaint}
    comes with {complaint}
    suffers from {complaint}
    presents with {complaint}
""")
SINCE = (" for {days} days", " for the last {days} days")
DRUG = lines("""
    Takes {drug} {dose} mg.
    Prescribed {drug} {dose} mg.
    Given {drug}, {dose} mg.
    Start {drug} {dose} mg daily.
    Medication: {drug} {dose} mg.
""")
ALLERGY = ("Allergic to {allergy}.", "Allergy: {allergy}.", "Known allergy to {allergy}.")

INVOICE_OPENINGS = ("Invoice {invoice} ", "Invoice no. {invoice} ", "Invoice number {invoice} ", "Bill {invoice} ")
BUYER = ("to {customer} ", "for {customer} ", "billed to {customer} ")
DATED = ("of {date}", "dated {date}", "from {date}", "on {date}")
GOODS = (
    ": {quantity} {article}",
    " for {quantity} {article}",
    ". {quantity} {article}",
    ", {quantity} {article} delivered",
)
TOTAL = lines("""
    , total {total} {currency}.
    . Total: {total} {currency}.
    , {total} {currency} in all.
    . Amount due: {total} {currency}.
""")
NAMES = {"born": "year of birth", "dose_mg": "dose", "days": "number of days"}


def make(draw: Draw) -> Dialogue:
    """One to three turns about one record."""
    kind = draw.one(("note", "note", "note", "invoice", "invoice"))
    key, record = draw.on_side(lambda: _keyed((_note if kind == "note" else _invoice)(draw)))
    kind = draw.one(("clinic note", "note") if kind == "note" else ("invoice", "bill"))
    turns = [_first(draw, record, kind, key)]
    while len(turns) < 3 and draw.chance(0.3):
        turns.append(_more(draw, record, key))
    return Dialogue(NAME, tuple(turns))


def _keyed(record: Record) -> tuple[str, Record]:
    return record.key, record


def _first(draw: Draw, record: Record, kind: str, key: str) -> Turn:
    values: dict[str, object] = {"text": record.text, "kind": kind, "kind_title": kind.capitalize()}
    present = [name for name, value in record.fields.items() if value is not None]
    how = draw.one(("all", "all", "some", "some", "one"))
    if how == "all":
        question = ask(draw, ALL, **values, names=", ".join(present))
        return _json_turn(question, record, present, key)
    if how == "some":
        names = _choice(draw, record, draw.number(1, 3))
        return _json_turn(ask(draw, SOME, **values, names=_listed(draw, names)), record, names, key)
    name = _choice(draw, record, 1)[0]
    return _word_turn(ask(draw, ONE, **values, name=_spoken(draw, name)), record, name, key)


def _more(draw: Draw, record: Record, key: str) -> Turn:
    if draw.chance(0.4):
        names = _choice(draw, record, draw.number(1, 2))
        return _json_turn(ask(draw, MORE_JSON, names=_listed(draw, names)), record, names, key)
    name = _choice(draw, record, 1)[0]
    return _word_turn(ask(draw, MORE, name=_spoken(draw, name)), record, name, key)


def _choice(draw: Draw, record: Record, count: int) -> list[str]:
    """Mostly fields that the record has: a missing one teaches to say so."""
    names = [name for name, value in record.fields.items() if value is not None or draw.chance(0.3)]
    return draw.some(names, min(count, len(names)))


def _listed(draw: Draw, names: Sequence[str]) -> str:
    joint = draw.one((", ", " and ")) if len(names) == 2 else ", "
    return joint.join(names)


def _spoken(draw: Draw, name: str) -> str:
    return NAMES.get(name, name) if draw.chance(0.5) else name


def _json_turn(question: str, record: Record, names: Sequence[str], key: str) -> Turn:
    answer = json.dumps({name: record.fields[name] for name in names}, ensure_ascii=False)
    return Turn(question, answer, SameJson(answer), key)


def _word_turn(question: str, record: Record, name: str, key: str) -> Turn:
    value = record.fields[name]
    if value is None:
        return Turn(question, MISSING, Mentions(("not say",)), key)
    others = {str(v) for k, v in record.fields.items() if k != name and v is not None} - {str(value)}
    return Turn(question, str(value), Mentions((str(value),), tuple(sorted(others))), key)


def _note(draw: Draw) -> Record:
    has_name, has_born = draw.one(((True, True), (True, True), (True, False), (False, True)))
    complaint = draw.one(COMPLAINTS)
    has_days, has_drug, has_allergy = draw.chance(0.5), draw.chance(0.6), draw.chance(0.4)
    fields: dict[str, Value] = {
        "patient": full_name(draw) if has_name else None,
        "born": draw.number(1925, 2019) if has_born else None,
        "complaint": complaint,
        "days": draw.number(2, 30) if has_days else None,
        "drug": draw.one(DRUGS) if has_drug else None,
        "dose_mg": draw.number(1, 99) * draw.one((1, 5, 10)) if has_drug else None,
        "allergy": draw.one(ALLERGIES) if has_allergy else None,
    }
    article = (
        "" if complaint[-1] == "s" or complaint in ("nausea", "fatigue", "itching", "insomnia", "dizziness") else "a "
    )
    text = draw.one(NOTE_OPENINGS[has_name, has_born]) + draw.one(COMPLAINT)
    text += (draw.one(SINCE) if has_days else "") + "."
    extra = ([draw.one(DRUG)] if has_drug else []) + ([draw.one(ALLERGY)] if has_allergy else [])
    text = " ".join([text, *draw.shuffled(extra)])
    return Record(text.format(**fields, dose=fields["dose_mg"], article=article), fields)


def _invoice(draw: Draw) -> Record:
    month = draw.number(0, 11)
    day = date(draw.number(1, LENGTHS[month]), month)
    has_date, has_goods = draw.chance(0.7), draw.chance(0.7)
    fields: dict[str, Value] = {
        "invoice": draw.number(100, 99999),
        "customer": company(draw) if draw.chance(0.7) else full_name(draw),
        "date": f"{day} {draw.number(2019, 2029)}" if has_date else None,
        "quantity": draw.number(2, 99) if has_goods else None,
        "article": draw.one(ARTICLES) if has_goods else None,
        "total": draw.number(10, 9999),
        "currency": draw.one(CURRENCIES),
    }
    text = draw.one(INVOICE_OPENINGS)
    parts = [draw.one(BUYER)] + ([draw.one(DATED) + " "] if has_date else [])
    text += "".join(draw.shuffled(parts)).rstrip() + (draw.one(GOODS) if has_goods else "") + draw.one(TOTAL)
    return Record(text.format(**fields), fields)
