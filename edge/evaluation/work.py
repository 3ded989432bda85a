"""A folder of what is finished, so that a run that was stopped goes on and a second one computes nothing again."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.evaluation.measured import Measured


def check_writable(folder: Path) -> None:
    """Make the folder if need be. Raises OSError now rather than after an hour."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def load_measured(folder: Path, key: Mapping[str, Any]) -> Measured | None:
    """What was measured under `key`; None if nothing was, or if its file is altered. Raises OSError."""
    try:
        body = json.loads(_file(folder, key).read_bytes())
        value = body["measured"]
        is_ours = body["key"] == key and body["digest"] == _digest(value)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return Measured.from_json(value) if is_ours else None


def save_measured(folder: Path, key: Mapping[str, Any], measured: Measured) -> None:
    """Keep it under `key`: the whole file or none. Raises OSError."""
    value = json.loads(json.dumps(measured.to_json()))
    handle, partial = tempfile.mkstemp(dir=folder, prefix=".measured.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"key": key, "digest": _digest(value), "measured": value}, file)
        Path(partial).replace(_file(folder, key))
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _file(folder: Path, key: Mapping[str, Any]) -> Path:
    return folder / f"measured-{_digest(key)}.json"


def _digest(value: Any) -> str:
    """Of a JSON value, the order of its names aside."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
