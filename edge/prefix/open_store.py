"""A prefix store for one engine: with a disk tier if a directory is named."""

from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import edge
from edge import _native, kernels
from edge.checkpoint.contents import MANIFEST_FILE
from edge.checkpoint.pack import Pack
from edge.prefix.directory import PrefixDirectory
from edge.prefix.disk import DiskTier
from edge.prefix.keys import PrefixKeys


def open_disk(path: Path, budget_bytes: int, pack: Pack) -> DiskTier:
    """The snapshots of a pack in the directory `path`, cleared of what is damaged. Raises PrefixDirectoryError."""
    directory = PrefixDirectory(path)
    try:
        identity = model_identity(pack)
        tier = DiskTier(directory, PrefixKeys(directory.secret(), identity), identity, budget_bytes)
        tier.sweep()
    except BaseException:
        directory.close()
        raise
    return tier


def model_identity(pack: Pack) -> bytes:
    """What stands for the weights, the program and its instruction set: another one would compute other bytes."""
    found = sha256()
    for part in (
        (pack.path / MANIFEST_FILE).read_bytes(),  # holds the checksum of every tensor and expert
        version("numpy").encode(),
        kernels.variant().encode(),
        bytes([pack.config.num_mtp_layers]),  # with it a snapshot holds more, of the same weights
        str(pack.config.top_k).encode(),  # which may be fewer than the manifest's
        Path(_native.__file__).read_bytes(),
        *(path.read_bytes() for path in _program_files()),  # a version says too little of a check-out
    ):
        found.update(sha256(part).digest())
    return found.digest()


def _program_files() -> list[Path]:
    """All that a state depends on of what is written in Python."""
    package = Path(edge.__file__).parent
    files = ("model.py", "batch.py", "state.py", "kernels.py", "prefix/snapshot.py")
    return [*(package / name for name in files), *sorted((package / "layers").glob("*.py"))]
