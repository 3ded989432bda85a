"""One run of `flashgate-edge eval`: every variant measured, or taken from an earlier run, and compared."""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from edge.budget import format_bytes, resident_bytes
from edge.checkpoint.contents import MANIFEST_FILE
from edge.checkpoint.pack import Pack
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.errors import BudgetError, EvaluationError
from edge.evaluation.figures import Figures, figures
from edge.evaluation.material import Material, material
from edge.evaluation.measure import Machine, loaded, measure
from edge.evaluation.measured import Measured
from edge.evaluation.packs import Packs, check_measurable
from edge.evaluation.texts import Texts
from edge.evaluation.variants import Variant, labels
from edge.evaluation.work import check_writable, load_measured, save_measured
from edge.progress import count_progress

MEASURED_VERSION = 1  # of what Measured means: another one makes what was kept useless


def evaluate(rows: Sequence[Variant], texts: Texts, machine: Machine, work: Path | None = None) -> Figures:
    """Everything that `eval --json` prints of `rows`, the first of which is the reference.

    What is finished is kept in `work`, packs and all; without it, packs are made in a temporary folder, one at a time
    beside the reference's. Raises EvaluationError, CheckpointError, CalibrationError, PackError, RequestError,
    BudgetError, StorageError; OSError if `work` cannot be written.
    """
    for row in rows:
        check_measurable(row)
    if work:
        check_writable(work)
    with ExitStack() as stack:
        folder = work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flashgate-eval-")))
        run = stack.enter_context(_Run(rows[0], texts, machine, folder))
        measured = []
        for place, row in enumerate(rows):
            measured.append(run.measured(row, f"{place + 1} of {len(rows)}"))
            is_last_of_weights = place + 1 == len(rows) or rows[place + 1].weights != row.weights
            if work is None and is_last_of_weights and row.weights != rows[0].weights:
                run.packs.discard(row.weights)
        return _report(rows, texts, measured, run.material)


class _Run:
    """The reference, loaded once at most, and what the others are measured with."""

    def __init__(self, reference: Variant, texts: Texts, machine: Machine, folder: Path) -> None:
        self._variant, self._texts, self._machine, self._folder = reference, texts, machine, folder
        self.packs = Packs(folder / "packs")
        self._engine: Engine | None = None
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        self._pack = Pack.open(self.packs.path(self._variant.weights))
        self.material = material(self._texts, self._pack)
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.close()

    def measured(self, row: Variant, place: str) -> Measured:
        """Of an earlier run, or of now."""
        is_reference = row == self._variant
        pack = self._pack if is_reference else self._comparable(row)
        key = self._key(row, pack, is_reference=is_reference)
        found = load_measured(self._folder, key)
        if found is None:
            found = self._measure(row, pack, place, is_reference=is_reference)
            save_measured(self._folder, key, found)
        return found

    def _measure(self, row: Variant, pack: Pack, place: str, *, is_reference: bool) -> Measured:
        total = len(self.material.passages) + len(self.material.prompts)
        with count_progress(f"measuring {place}", total, "texts") as bar:
            try:
                reference = None if is_reference else self._reference_engine()
                return measure(row, pack, self.material, self._machine, reference, bar.update)
            except BudgetError as error:
                if is_reference:
                    raise
                shared = f"--memory {format_bytes(self._machine.memory_bytes)} is shared by two models"
                raise BudgetError(f"{shared}, the reference and {pack.path}, of which one {error}") from error

    def _reference_engine(self) -> Engine:
        """In half of what the process itself leaves, from its first use to the end."""
        if self._engine is None:
            own = resident_bytes()
            options = EngineOptions(
                memory_bytes=max(1, own + (self._machine.memory_bytes - own) // 2),
                context_tokens=self.material.context_tokens,
                threads=self._machine.threads,
                max_sequences=1,
                speculate="off",
            )
            self._engine = self._closing.enter_context(loaded(self._pack.path, options))
        return self._engine

    def _comparable(self, row: Variant) -> Pack:
        """Its pack, whose tokens are those of the reference. Raises EvaluationError."""
        pack = Pack.open(self.packs.path(row.weights))
        if pack.config.vocab_size != self._pack.config.vocab_size or material(self._texts, pack) != self.material:
            raise EvaluationError(
                f"{pack.path}: its tokens are not those of {self._pack.path}: nothing can be compared"
            )
        return pack

    def _key(self, row: Variant, pack: Pack, *, is_reference: bool) -> dict[str, Any]:
        """All that the outcome depends on; neither memory nor threads are of it."""
        return {
            "version": MEASURED_VERSION,
            "program": version("flashgate"),
            "pack": _manifest_digest(pack),
            "reference": None if is_reference else _manifest_digest(self._pack),
            "material": self.material.digest,
            "max_tokens": self.material.max_tokens,
            "experts_per_token": row.experts_per_token,
            "substitute": row.substitute,
            "slots": row.slots,
            "speculates": row.speculates,
        }


def _manifest_digest(pack: Pack) -> str:
    """Of the weights, too: the manifest has their checksums."""
    return hashlib.sha256((pack.path / MANIFEST_FILE).read_bytes()).hexdigest()


def _report(rows: Sequence[Variant], texts: Texts, measured: Sequence[Measured], material: Material) -> Figures:
    names = labels(rows, [one.precision for one in measured])
    reference = measured[0]
    return {
        "reference": names[0],
        "model": reference.name,
        "questions": len(texts.questions),
        "max_tokens": material.max_tokens,
        "scored": "text" if texts.text is not None else "reference answers",
        "scored_tokens": material.num_scored,
        "rows": [
            {
                "label": name,
                **figures(texts.questions, one, None if one is reference else reference),
                "identical": identical,
            }
            for name, one, identical in zip(names, measured, _identical(rows, measured), strict=True)
        ],
    }


def _identical(rows: Sequence[Variant], measured: Sequence[Measured]) -> Iterator[bool | None]:
    """Whether answers and logits are byte for byte those of the same weights with all experts; None: need not be."""
    of = dict(zip(rows, measured, strict=True))
    for row, one in zip(rows, measured, strict=True):
        base = of[row.base]
        yield ((one.answers, one.logits_digest) == (base.answers, base.logits_digest) if row.is_exact else None)
