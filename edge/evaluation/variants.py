"""What is compared: each a model's weights in some precision, run in some way."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from edge.checkpoint.precision import precision
from edge.deviation import check_deviation
from edge.errors import EvaluationError


@dataclass(frozen=True, slots=True)
class Weights:
    """A pack, or a checkpoint to be packed at `bits`."""

    source: Path
    bits: float | None = None  # None: source is a pack
    calibration: Path | None = None  # the text that it is quantised for; None: rounded to nearest


@dataclass(frozen=True, slots=True)
class Variant:
    """Weights, and how they are run; None: as the model's makers do, with all experts that fit."""

    weights: Weights
    experts_per_token: int | None = None
    substitute: float | None = None  # share of a token below which a missing expert gives way to one in RAM
    slots: int | None = None  # experts in RAM
    speculates: bool = False  # with the MTP layer

    @property
    def base(self) -> "Variant":
        """The same weights, run as their makers do."""
        return Variant(self.weights)

    @property
    def is_exact(self) -> bool:
        """Whether answers and logits must be byte for byte those of `base`: only how they come about is different."""
        return self != self.base and self.experts_per_token is None and self.substitute is None


@dataclass(frozen=True, slots=True)
class Choices:
    """What is asked for. Each choice is varied alone, beside the weights' own row: not every combination of all."""

    models: tuple[Path, ...]
    reference: Path | None = None
    bits: tuple[float, ...] = ()
    calibration: Path | None = None
    experts_per_token: tuple[int, ...] = ()
    substitutes: tuple[float, ...] = ()
    slots: tuple[int, ...] = ()
    speculates: bool = False

    def __post_init__(self) -> None:
        for bits in self.bits:
            precision(bits)
        for number in self.experts_per_token:
            check_deviation(number, None)
        for share in self.substitutes:
            check_deviation(None, share)
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


def labels(rows: Sequence[Variant], precisions: Sequence[str]) -> list[str]:
    """What tells each from the others; `precisions` are those of their packs."""
    names = _names([row.weights.source for row in rows])
    return [
        " ".join(filter(None, (name, ", ".join([own, *_ways(row)]))))
        for name, row, own in zip(names, rows, precisions, strict=True)
    ]


def _reference(choices: Choices) -> Weights:
    path = choices.reference or choices.models[0]
    return Weights(path, 16) if is_checkpoint(path) else Weights(path)


def _rows(choices: Choices) -> Iterator[Variant]:
    for weights in _weights(choices):
        base = Variant(weights)
        yield base
        yield from (replace(base, experts_per_token=number) for number in choices.experts_per_token)
        yield from (replace(base, slots=slots) for slots in choices.slots)
        if choices.speculates:
            yield replace(base, speculates=True)
        # With every expert in RAM none is missing: what substitution costs is a matter of the cache's size.
        for share, slots in product(choices.substitutes, choices.slots or (None,)):
            yield replace(base, substitute=share, slots=slots)


def _weights(choices: Choices) -> Iterator[Weights]:
    for path in choices.models:
        if is_checkpoint(path):
            for bits in choices.bits or (16,):
                yield Weights(path, bits)
                if choices.calibration and bits < 16:
                    yield Weights(path, bits, choices.calibration)
        elif choices.bits or choices.calibration:
            raise EvaluationError(f"{path} is packed already: --bits and --calibration need its checkpoint")
        else:
            yield Weights(path)


def _names(paths: Sequence[Path]) -> list[str]:
    """Nothing where there is one model; else its directory's name, or the whole path where two have the same."""
    different = dict.fromkeys(paths)
    if len(different) == 1:
        return [""] * len(paths)
    are_unique = len({path.name for path in different}) == len(different)
    return [path.name if are_unique else str(path) for path in paths]


def _ways(variant: Variant) -> list[str]:
    ways = {
        "K {}": variant.experts_per_token,
        "substitute {:g}": variant.substitute,
        "{} slots": variant.slots,
        "speculation": variant.speculates or None,
    }
    return [text.format(value) for text, value in ways.items() if value is not None]
