"""Which experts were asked for, recorded while a model runs: what the cache policies are compared on."""

import zipfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge.errors import TraceError

_COLUMNS = ("step", "layer", "is_scan", "end", "expert", "rank", "num_experts")
_PER_ACCESS, _PER_EXPERT = ("step", "layer", "is_scan", "end"), ("expert", "rank")
_NO_RANK = -1


@dataclass(frozen=True, slots=True)
class Access:
    """The experts of one layer that one pass of the model needed."""

    step: int  # number of the pass
    layer: int
    experts: tuple[int, ...]  # distinct
    is_scan: bool  # the pass had tokens of a prompt
    ranks: tuple[
        int, ...
    ] = ()  # of each expert, in what was guessed a layer before: 0 is the surest; () without a guess


class TraceWriter:
    """Collects accesses, a few bytes each, and writes them when closed. `record` and `guess` are for an ExpertStore."""

    def __init__(self, path: Path, num_experts: int = 0) -> None:
        """`num_experts`: of the model, all layers together; 0: not known.

        Raises OSError if `path` cannot be written: at once, not after the run.
        """
        self._file = path.open("wb")
        self._columns = {name: array("i") for name in _COLUMNS}
        self._columns["num_experts"].append(num_experts)
        self._guess: tuple[int, NDArray[np.intp]] | None = None  # layer, and the rank of each of its experts

    def record(self, layer: int, experts: Sequence[int], is_scan: bool) -> None:
        """One more access; a layer that does not follow the last one begins the next pass."""
        columns = self._columns
        layers, steps = columns["layer"], columns["step"]
        step = 0 if not layers else steps[-1] + (layer <= layers[-1])
        columns["expert"].extend(experts)
        columns["rank"].extend(self._ranks(layer, experts, is_scan))
        for name, value in (("step", step), ("layer", layer), ("is_scan", is_scan)):
            columns[name].append(value)
        columns["end"].append(len(columns["expert"]))

    def guess(self, layer: int, scores: NDArray[np.float32]) -> None:
        """The guess of what `layer` will be recorded to need. Of several tokens an expert's best rank counts."""
        order = np.argsort(-scores, axis=1, kind="stable")
        self._guess = layer, np.argsort(order, axis=1, kind="stable").min(0)

    def _ranks(self, layer: int, experts: Sequence[int], is_scan: bool) -> Sequence[int]:
        guess, self._guess = self._guess, None
        if guess is None or guess[0] != layer or is_scan:
            return [_NO_RANK] * len(experts)
        ranks: list[int] = guess[1][list(experts)].tolist()
        return ranks

    def close(self) -> None:
        """Write the file; idempotent."""
        if not self._file.closed:
            with self._file:
                columns = {name: np.array(values, np.int32) for name, values in self._columns.items()}
                np.savez_compressed(self._file, allow_pickle=False, **columns)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Trace:
    """A recorded trace in memory."""

    def __init__(self, columns: dict[str, NDArray[np.int64]]) -> None:
        self._columns = columns

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises TraceError naming the file."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                columns = {name: np.asarray(stored[name]) for name in _COLUMNS}
        except OSError as error:
            raise TraceError(f"{path}: not a trace of expert accesses: {error}") from error
        # What numpy says of a file that is none of its own is no help: it proposes to load it unsafely.
        except (AttributeError, KeyError, MemoryError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise TraceError(f"{path}: not a trace of expert accesses, or cut off; `trace` makes one") from error
        trace = cls(columns)
        trace._check(path)
        return trace

    def _check(self, path: Path) -> None:
        columns = self._columns
        if any(column.ndim != 1 or not np.issubdtype(column.dtype, np.integer) for column in columns.values()):
            raise TraceError(f"{path}: its columns are not lists of whole numbers")
        if any(len({len(columns[name]) for name in names}) != 1 for names in (_PER_ACCESS, _PER_EXPERT)):
            raise TraceError(f"{path}: its columns differ in length")
        if len(columns["num_experts"]) != 1 or columns["num_experts"][0] < 0:
            raise TraceError(f"{path}: does not say how many experts the model has")
        ends = np.concatenate([[0], columns["end"]])
        if (np.diff(ends) < 0).any() or ends[-1] != len(columns["expert"]):
            raise TraceError(f"{path}: its accesses do not add up to its {len(columns['expert'])} experts")

    def __len__(self) -> int:
        return len(self._columns["step"])

    @property
    def num_experts(self) -> int:
        """Of the model, all layers together; if nobody said, those that were asked for."""
        told = int(self._columns["num_experts"][0])
        return told or len({(access.layer, expert) for access in self for expert in access.experts})

    def __iter__(self) -> Iterator[Access]:
        steps, layers, scans, ends = (self._columns[name].tolist() for name in _PER_ACCESS)
        experts, ranks = (self._columns[name].tolist() for name in _PER_EXPERT)
        begin = 0
        for step, layer, is_scan, end in zip(steps, layers, scans, ends, strict=True):
            guessed = tuple(ranks[begin:end]) if begin < end and ranks[begin] != _NO_RANK else ()
            yield Access(step, layer, tuple(experts[begin:end]), bool(is_scan), guessed)
            begin = end
