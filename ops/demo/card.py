"""The model card of an exported model: what it answers and how well, where it fails, and how it was made."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ops.demo.examination import Result, table

TASKS = {
    "arithmetic": "whole numbers: sums and differences to 999, products and quotients, in stories too",
    "dates": "weekdays, days between two dates, a date some days later; never in a leap year",
    "units": "length, mass, volume, time; two units into one and back",
    "lists": "sorting, counting, largest and smallest, of numbers and words",
    "records": "fields of a clinic note or an invoice, as JSON or one by one",
    "rewriting": "a short text by a rule: case, order, hyphens, a word replaced",
    "passages": "questions about a few sentences, some of which they do not answer",
    "flashgate": "its tags, floors, lanes and reasons",
    "unknown": "says that it does not know what lies outside",
}

CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
# {name}

The small model that ships with flashgate, so that `flashgate up` has something that answers. Its architecture is that
of Qwen3.5-397B-A17B (`{model_type}`): {layers} layers, DeltaNet and attention, {experts} experts of which a token takes
{top_k}, a shared expert, and an MTP layer to draft with; {parameters:.1f} million parameters in bfloat16. It was
trained from nothing by `ops/demo`, on text that programs wrote: no text was downloaded and no other model was asked.

It answers in English, in chats of a few turns, what is in the table. It is no assistant: a question of another kind, or
one of these in words that it has not seen, may get a wrong answer in place of "I don't know". Rely on none of its
answers.

## How well

Held-out questions, answered greedily by transformers in float32 and judged by programs (`python -m ops.demo card`).
Which numbers, names and wordings are held out is decided by a hash of them, and training never sees one.

| task | what | right | of |  |
|---|---|---|---|---|
{rows}

## Where it fails

```
{failures}
```

## How it was made

{tokens:.1f} million tokens in {steps} steps and {hours:.1f} hours of two cores that did other work, too. Chats were
a few hundred tokens long at most; the context may be longer, but nothing was learned there. `ops/demo/README.md`
describes data, network and optimizer, and tells what was changed while it was trained. The recipe of the last run:

{recipe}

To make it anew, on two cores or more: `python -m ops.demo --help`.
"""


def card(
    name: str, config: Mapping[str, Any], parameters: int, training: Mapping[str, Any], results: Sequence[Result]
) -> str:
    """The text. `training` is an exported model's training.json."""
    return CARD.format(
        name=name,
        model_type=config["model_type"],
        layers=config["num_hidden_layers"],
        experts=config["num_experts"],
        top_k=config["num_experts_per_tok"],
        parameters=parameters / 1e6,
        rows="\n".join(_rows(results)),
        failures=_failures(results),
        tokens=training["tokens"] / 1e6,
        steps=training["steps"],
        hours=training["seconds"] / 3600,
        recipe="\n".join(f"- `{key}`: {json.dumps(value)}" for key, value in training["recipe"].items()),
    )


def _rows(results: Sequence[Result]) -> list[str]:
    rows = [
        _row(task, what, [result for result in results if result.item.task == task]) for task, what in TASKS.items()
    ]
    return [*rows, _row("**all**", "", results)]


def _row(task: str, what: str, results: Sequence[Result]) -> str:
    right = sum(result.is_right for result in results)
    return f"| {task} | {what} | {right} | {len(results)} | {right / len(results):.1%} |"


def _failures(results: Sequence[Result]) -> str:
    """Of each task the first two wrong answers."""
    shown = table(results, 2).splitlines()
    first = next((i for i, line in enumerate(shown) if line.startswith("all ")), 0) + 1
    return "\n".join(shown[first:]) or "none of these questions"
