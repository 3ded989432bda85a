"""The packs that are measured: those that were named, and those made of checkpoints, each in a folder of its own."""

import hashlib
import json
import shutil
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edge.checkpoint.convert import Conversion, model_name
from edge.checkpoint.disk import file_crc
from edge.checkpoint.layout import VERSION
from edge.checkpoint.pack import Pack
from edge.checkpoint.source import Checkpoint
from edge.config import ModelConfig
from edge.deviation import Deviation
from edge.errors import EvaluationError
from edge.evaluation.variants import Variant, Weights
from edge.progress import byte_progress


def check_measurable(variant: Variant) -> None:
    """Before hours go into others. Raises PackError, CheckpointError, RequestError, EvaluationError; OSError."""
    config = _config(variant.weights)
    Deviation.asked(config, variant.experts_per_token, variant.substitute)
    if variant.speculates and not config.num_mtp_layers:
        raise EvaluationError(f"{variant.weights.source}: has no MTP layer: leave --speculate")
    if variant.weights.calibration:
        variant.weights.calibration.open("rb").close()


def _config(weights: Weights) -> ModelConfig:
    if weights.bits is None:
        return Pack.open(weights.source).config
    with closing(Checkpoint(weights.source)) as checkpoint:
        return checkpoint.config


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
                Conversion(weights.source, out, bits=weights.bits, calibration=weights.calibration) as conversion,
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
            key: list[Any] = [VERSION, version("flashgate"), checkpoint.identity(), checkpoint.modified_ns()]
        how = f"{weights.bits:g}bit"
        if weights.calibration:
            how += "-calibrated"
            key.append(file_crc(weights.calibration))
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
        return f"{model_name(weights.source)}-{how}-{digest}"
