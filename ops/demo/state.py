"""A training's state on disk: whole or not there, whenever the process dies."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

FILE = "state.pt"


@dataclass(frozen=True, slots=True)
class State:
    """After `step` steps over `tokens_seen` tokens. `recipe`: what the run that saved it was given."""

    step: int
    tokens_seen: int
    seconds: float
    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    recipe: dict[str, Any] = field(default_factory=dict)


def save_state(folder: Path, state: State) -> None:
    """Written beside the last one, then renamed over it."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{FILE}.partial"
    with partial.open("wb") as file:
        torch.save(asdict(state), file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / FILE)


def load_state(folder: Path) -> State | None:
    """The last one saved, None if there is none."""
    path = folder / FILE
    return State(**torch.load(path, weights_only=True)) if path.exists() else None
