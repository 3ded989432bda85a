"""The figures of an evaluation for people: one row for each variant."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from edge.budget import format_bytes

NARROWEST = 20  # that sentences are broken for
NOTHING = "–"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """Two lines of heading, and what stands under them; None leaves a place empty."""

    above: str
    heading: str
    cell: Callable[[Row], str | None]

    def lines(self, rows: Sequence[Row]) -> list[str]:
        """All of it, each as wide as the widest."""
        lines = [self.above, self.heading, *(self.cell(row) or NOTHING for row in rows)]
        width = max(map(len, lines))
        return [f"{line:>{width}}" for line in lines]


def table(report: dict[str, Any], width: int) -> str:
    """Of what `flashgate-edge eval --json` prints; columns that do not fit beside each other follow below."""
    rows = report["rows"]
    notes = [line for note in _notes(report) for line in textwrap.wrap(note, max(width, NARROWEST))]
    different = [row for row in rows if not row["identical"]]
    by_task = _blocks(different, _task_columns(different), width, heading="right, by task", gap=" ")
    blocks = [*_blocks(rows, _columns(rows), width), *by_task, notes]
    return "\n\n".join("\n".join(block) for block in blocks)


def _columns(rows: Sequence[Row]) -> list[Column]:
    every = (
        Column("", "size", lambda row: format_bytes(row["nbytes"])),
        Column("right", "95% interval", lambda row: _interval(row["accuracy"])),
        Column("JSON", "valid", lambda row: _percent(row["json"])),
        Column("same", "answers", lambda row: _percent(row["same_answers"])),
        Column("own", "experts", lambda row: None if row["own_experts"] is None else f"{row['own_experts']:.1%}"),
        Column("", "perplexity", lambda row: row["perplexity"] and _number(row["perplexity"]["value"])),
        Column("KL to the", "reference", lambda row: row["kl"] and _mean(row["kl"])),
        Column("same", "tokens", lambda row: _percent(row["same_tokens"])),
    )
    return [column for column in every if any(column.cell(row) for row in rows)]


def _task_columns(rows: Sequence[Row]) -> list[Column]:
    return [Column("", task, partial(_task_cell, task)) for task in rows[0]["tasks"]]


def _task_cell(task: str, row: Row) -> str | None:
    share = row["tasks"][task]["share"]
    return f"{share:.0%}"


def _blocks(
    rows: Sequence[Row], columns: Sequence[Column], width: int, *, heading: str = "", gap: str = "  "
) -> Iterator[list[str]]:
    labels = ["", heading, *(row["label"] for row in rows)]
    label_width = max(map(len, labels))
    labels = [f"{label:{label_width}}" for label in labels]
    block = labels
    for column in columns:
        wider = [line + gap + cell for line, cell in zip(block, column.lines(rows), strict=True)]
        if len(wider[0]) > width and block is not labels:
            yield _without_empty(block)
            wider = [line + gap + cell for line, cell in zip(labels, column.lines(rows), strict=True)]
        block = wider
    if block is not labels:
        yield _without_empty(block)


def _without_empty(lines: Sequence[str]) -> list[str]:
    return [line.rstrip() for line in lines if line.strip()]


def _notes(report: dict[str, Any]) -> Iterator[str]:
    if report["questions"]:
        yield f"{report['questions']} questions, answered greedily in at most {report['max_tokens']} tokens"
    scored = f"{report['scored_tokens']} tokens of the {report['scored']}"
    yield f"perplexity, KL (nats per token) and same tokens: over {scored}"
    yield f"the reference: {report['reference']}"
    for row in report["rows"]:
        if row["identical"] is not None:
            verdict = "are" if row["identical"] else "ARE NOT"
            yield f"{row['label']}: answers and logits {verdict} byte for byte those of the same weights alone"


def _interval(share: dict[str, Any] | None) -> str | None:
    return None if share is None else f"{share['share']:.1%} {100 * share['low']:.1f}–{100 * share['high']:.1f}"


def _percent(share: dict[str, Any] | None) -> str | None:
    return None if share is None else f"{share['share']:.1%}"


def _mean(mean: dict[str, Any]) -> str:
    error = "" if mean["error"] is None else f" ±{_number(mean['error'])}"
    return f"{_number(mean['mean'])}{error}"


def _number(value: float | None) -> str | None:
    """Four digits behind the point, or as many as count where that would show none."""
    if value is None:
        return None
    return f"{value:.4f}" if value == 0 or 0.0005 <= value < 1000 else f"{value:.2g}"
