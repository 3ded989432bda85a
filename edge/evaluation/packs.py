"""The packs that are measured: those that were named, and those made of checkpoints, each in a folder of its own."""

import hashlib
import json
import shutil
from contextlib import closing
from pathlib import Path

from edge.checkpoint.convert import Conversion, model_name
from edge.checkpoint.pack import Pack
from edge.checkpoint.source import Checkpoint
from edge.evaluation.variants import Weights
from edge.progress import byte_progress


def check_readable(weights: Weights) -> None:
    """Raise PackError or CheckpointError for what cannot be measured, before hours go into what can."""
    if weights.bits is None:
        Pack.open(weights.source)
    else:
        Checkpoint(weights.source).close()


class Packs:
    """Packs made in `folder`. A conversion that was stopped goes on; a finished pack is not made again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, weights: Weights) -> Path:
        """The pack of some weights, made if need be, with a progress bar. Raises CheckpointError."""
        if weights.bits is None:
            return weights.source
        out = self._folder / self._name(weights)
        if not out.exists():
            with (
                Conversion(weights.source, out, bits=weights.bits) as conversion,
                byte_progress(
                    f"packing at {weights.bits:g} bits", conversion.source_bytes, conversion.finished_bytes
                ) as bar,
            ):
                conversion.run(bar.update)
        return out

    def discard(self, weights: Weights) -> None:
        """Delete a pack that was made here."""
        if weights.bits is not None:
            shutil.rmtree(self._folder / self._name(weights), ignore_errors=True)

    def _name(self, weights: Weights) -> str:
        """Another one for other weights: a pack that is there is known to be the right one."""
        with closing(Checkpoint(weights.source)) as checkpoint:
            key = [checkpoint.identity(), checkpoint.modified_ns()]
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
        return f"{model_name(weights.source)}-{weights.bits:g}bit-{digest}"
