"""The figures of an evaluation for people: one row for each variant."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edge.budget import format_bytes

WIDTH = 100  # of a terminal, at most
NOTHING = "–"

Row = dict[str, Any]
Cells = list[str]


@dataclass(frozen=True, slots=True)
class Column:
    """Two lines of heading, and what stands under them; None leaves a place empty."""

    above: str
    heading: str
    cell: Callable[[Row], str | None]


def table(report: dict[str, Any]) -> str:
    """Of what `flashgate-edge eval --json` prints."""
    rows = report["rows"]
    blocks = [_main_table(rows), *_task_tables(rows)]
    return "\n\n".join("\n".join(block) for block in (*blocks, [*_notes(report)]) if block)


def _main_table(rows: Sequence[Row]) -> list[str]:
    columns = (
        Column("", "size", lambda row: format_bytes(row["nbytes"])),
        Column("right", "(95% interval)", lambda row: _interval(row["accuracy"])),
        Column("JSON", "valid", lambda row: _percent(row["json"])),
        Column("", "perplexity", lambda row: row["perplexity"] and _perplexity(row["perplexity"]["value"])),
        Column("KL to the", "reference", lambda row: row["kl"] and _mean(row["kl"])),
        Column("same", "tokens", lambda row: _percent(row["same_tokens"])),
        Column("same", "answers", lambda row: _percent(row["same_answers"])),
        Column("own", "experts", lambda row: None if row["own_experts"] is None else f"{row['own_experts']:.1%}"),
    )
    return _lay_out(rows, [column for column in columns if any(column.cell(row) for row in rows)])


def _task_tables(rows: Sequence[Row]) -> Iterator[list[str]]:
    """As many tasks beside each other as fit."""
    label = max(len(row["label"]) for row in rows)
    beside: list[Column] = []
    width = label
    for task in rows[0]["tasks"]:
        column = Column("", task, lambda row, task=task: _percent(row["tasks"][task]))  # type: ignore[misc]
        needed = 2 + max(len(task), len("100.0%"))
        if beside and width + needed > WIDTH:
            yield _lay_out(rows, beside)
            beside, width = [], label
        beside.append(column)
        width += needed
    if beside:
        yield _lay_out(rows, beside)


def _lay_out(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    lines = [["", *(column.above for column in columns)], ["", *(column.heading for column in columns)]]
    lines += [[row["label"], *(column.cell(row) or NOTHING for column in columns)] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    first, *others = widths
    return [
        "  ".join(
            [f"{line[0]:{first}}", *(f"{cell:>{width}}" for cell, width in zip(line[1:], others, strict=True))]
        ).rstrip()
        for line in lines
        if any(line)
    ]


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
    return None if share is None else f"{share['share']:.1%} ({100 * share['low']:.1f}–{100 * share['high']:.1f})"


def _percent(share: dict[str, Any] | None) -> str | None:
    return None if share is None else f"{share['share']:.1%}"


def _perplexity(value: float) -> str:
    return f"{value:.4f}" if value < 100 else f"{value:.4g}"


def _mean(mean: dict[str, Any]) -> str:
    error = "" if mean["error"] is None else f" ±{mean['error']:.2g}"
    return f"{mean['mean']:.3g}{error}"
