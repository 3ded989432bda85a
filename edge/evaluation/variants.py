"""What is compared: each a model's weights in some precision, run in some way."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge.checkpoint.precision import precision
from edge.errors import EvaluationError


@dataclass(frozen=True, slots=True)
class Weights:
    """A pack, or a checkpoint to be packed at `bits`."""

    source: Path
    bits: float | None = None  # None: source is a pack


@dataclass(frozen=True, slots=True)
class Variant:
    """Weights, and how they are run; None: as the model's makers do, with all experts that fit."""

    weights: Weights
    slots: int | None = None  # experts in RAM

    @property
    def base(self) -> "Variant":
        """The same weights, run as their makers do."""
        return Variant(self.weights)

    @property
    def is_exact(self) -> bool:
        """Whether answers and logits must be byte for byte those of `base`: nothing but the cache is different."""
        return self.slots is not None


@dataclass(frozen=True, slots=True)
class Choices:
    """What is asked for. Each choice is varied alone, beside the weights' own row: not every combination of all."""

    models: tuple[Path, ...]
    reference: Path | None = None
    bits: tuple[float, ...] = ()
    slots: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for bits in self.bits:
            precision(bits)
        for slots in self.slots:
            if slots < 1:
                raise EvaluationError(f"slots is {slots}: it must be at least 1")


def is_checkpoint(path: Path) -> bool:
    """Whether it is something to convert; else it must be a pack."""
    return not (path / "manifest.json").exists() and (path / "config.json").exists()


def variants(choices: Choices) -> list[Variant]:
    """The reference first, then every row in order, none twice.

    The reference is what was named, at 16 bits if it is a checkpoint; else the first model. Raises EvaluationError.
    """
    return list(dict.fromkeys([Variant(_reference(choices)), *_rows(choices)]))


def labels(rows: Sequence[Variant], bits: Sequence[float]) -> list[str]:
    """What tells each from the others; `bits` are those of their packs."""
    names = _names([row.weights.source for row in rows])
    return [" ".join(filter(None, (name, _label(row, own)))) for name, row, own in zip(names, rows, bits, strict=True)]


def _reference(choices: Choices) -> Weights:
    path = choices.reference or choices.models[0]
    return Weights(path, 16) if is_checkpoint(path) else Weights(path)


def _rows(choices: Choices) -> Iterator[Variant]:
    for weights in _weights(choices):
        base = Variant(weights)
        yield base
        for slots in choices.slots:
            yield replace(base, slots=slots)


def _weights(choices: Choices) -> Iterator[Weights]:
    for path in choices.models:
        if is_checkpoint(path):
            for bits in choices.bits or (16,):
                yield Weights(path, bits)
        elif choices.bits:
            raise EvaluationError(f"{path} is packed already: --bits needs the checkpoint it came from")
        else:
            yield Weights(path)


def _names(paths: Sequence[Path]) -> list[str]:
    """Nothing where there is one model; else its directory's name, or the whole path where two have the same."""
    different = dict.fromkeys(paths)
    if len(different) == 1:
        return [""] * len(paths)
    are_unique = len({path.name for path in different}) == len(different)
    return [path.name if are_unique else str(path) for path in paths]


def _label(variant: Variant, bits: float) -> str:
    parts = [f"{bits:g} bits"]
    if variant.slots is not None:
        parts.append(f"{variant.slots} slots")
    return ", ".join(parts)
