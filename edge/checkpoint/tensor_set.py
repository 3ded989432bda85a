"""All *.safetensors files of a checkpoint directory, with or without an index, as one table of tensors."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from edge.checkpoint.json_file import read_object
from edge.checkpoint.tensor_file import TensorFile
from edge.errors import CheckpointError

SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
NAMED_AT_MOST = 8  # tensors listed in one error; a count stands for the rest


class TensorSet:
    """Open files. `tensors` maps each tensor's name to the file that holds it.

    Raises: CheckpointError for a missing or damaged file, a tensor that stands twice, an index that is not true.
    """

    def __init__(self, path: Path) -> None:
        weight_map = _weight_map(path)
        self.files: list[TensorFile] = []
        self.tensors: dict[str, TensorFile] = {}
        with ExitStack() as files:
            for name in _file_names(path, weight_map):
                file = files.enter_context(closing(TensorFile(path / name)))
                if twice := self.tensors.keys() & file.tensors.keys():
                    first = self.tensors[min(twice)].path.name
                    raise CheckpointError(f"{path}: {name_some(twice)} in {first} and again in {name}")
                self.files.append(file)
                self.tensors |= dict.fromkeys(file.tensors, file)
            if weight_map is not None:
                self._check_index(path / INDEX_FILE, weight_map)
            self._closing = files.pop_all()

    def close(self) -> None:
        """Close the files; idempotent."""
        self._closing.close()

    def _check_index(self, index: Path, weight_map: Mapping[str, str]) -> None:
        true = {name: file.path.name for name, file in self.tensors.items()}
        if wrong := [name for name in true.keys() | weight_map.keys() if true.get(name) != weight_map.get(name)]:
            raise CheckpointError(f"{index}: {name_some(wrong)}: the index and the files do not agree")


def name_some(names: Iterable[str]) -> str:
    """The first few names in order, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - NAMED_AT_MOST} more" if len(ordered) > NAMED_AT_MOST else ""
    return ", ".join(ordered[:NAMED_AT_MOST]) + more


def _weight_map(path: Path) -> dict[str, str] | None:
    """Of the index, None without one. transformers takes a single file first where both stand, and so does this."""
    index = path / INDEX_FILE
    if (path / SINGLE_FILE).is_file() or not index.is_file():
        return None
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{index}: no weight_map from tensors to files")
    for name in set(weight_map.values()):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index}: {name!r} is not the name of a *.safetensors file beside it")
        if not (path / name).is_file():
            raise CheckpointError(f"{index}: names the file {name}, which is missing")
    return weight_map


def _file_names(path: Path, weight_map: Mapping[str, str] | None) -> Sequence[str]:
    if weight_map is not None:
        return sorted(set(weight_map.values()))
    if (path / SINGLE_FILE).is_file():
        return [SINGLE_FILE]
    names = sorted(file.name for file in path.glob("*.safetensors"))
    if not names:
        raise CheckpointError(f"{path}: no *.safetensors file")
    return names
