"""Converting takes the same memory whatever the model's size: measured on a real process."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.checkpoint.hf_config import write_config
from edge.checkpoint.layout import Format
from edge.checkpoint.random_model import SMALL, tensor_shapes
from edge.checkpoint.tensor_file import NewTensor, TensorFileWriter

MIB = 1024**2

MEASURE = """
import sys
from pathlib import Path
from edge.checkpoint.convert import Conversion
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
before = peak()
with Conversion(Path(sys.argv[1]), Path(sys.argv[2]), bits=int(sys.argv[3])) as conversion:
    conversion.run(lambda done: None)
print(peak() - before)
"""


def write_sparse_checkpoint(path: Path) -> int:
    """A model of zeros whose file is all hole: big to read, nothing on disk. Returns its size."""
    config = dataclasses.replace(SMALL, hidden_size=1024, vocab_size=40_000, num_experts=96, expert_size=256)
    path.mkdir()
    (path / "config.json").write_text(json.dumps(write_config(config, "bfloat16")))
    with (path / "model.safetensors").open("wb") as file:
        tensors = {name: NewTensor(Format.BF16, shape) for name, shape in tensor_shapes(config)}
        TensorFileWriter(file, tensors)
        size = file.tell() + sum(tensor.nbytes for tensor in tensors.values())
        file.truncate(size)
    return size


@pytest.mark.parametrize("bits", [16, 4])
def test_memory_is_an_expert_and_some_rows(tmp_path: Path, bits: int) -> None:
    size = write_sparse_checkpoint(tmp_path / "source")
    assert size > 700 * MIB
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "source"), str(tmp_path / "out"), str(bits)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    # An expert is 1.5 MiB, the largest tensor 192 MiB, a layer's experts 144 MiB.
    assert int(done.stdout) < 24 * MIB
