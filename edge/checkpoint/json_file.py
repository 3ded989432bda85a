"""JSON objects from files that anybody may have written."""

import json
from pathlib import Path
from typing import Any

from edge.errors import CheckpointError


def read_object(path: Path) -> dict[str, Any]:
    """The object in a file. Raises CheckpointError naming the file if it is missing, unreadable or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return value
