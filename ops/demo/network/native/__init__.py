"""C++ for what runs along the tokens of a chat, built at first use. An aid: without a compiler torch does the same."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

COMPILE = ("-std=c++17", "-O3", "-march=native", "-ffast-math", "-fopenmp", "-fPIC", "-c")
# Apart from compiling, for with -ffast-math gcc links code that makes the whole process treat small numbers as zero.
LINK = ("-fopenmp", "-shared")
ENVIRONMENT = "FLASHGATE_DEMO_NATIVE"  # 0: do without


def library(name: str, **constants: int) -> ctypes.CDLL | None:
    """`name`.cpp of this folder with the constants defined; None without a compiler or where the environment says 0.

    Raises: OSError with the compiler's words if the source does not build.
    """
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None or os.environ.get(ENVIRONMENT) == "0":
        return None
    return _loaded(compiler, name, tuple(f"-D{key.upper()}={value}" for key, value in sorted(constants.items())))


def addresses(*tensors: "torch.Tensor") -> list[ctypes.c_void_p]:
    """Where the numbers of contiguous tensors stand."""
    return [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]


def counts(*numbers: int) -> list[ctypes.c_int64]:
    """As the functions take them."""
    return [ctypes.c_int64(number) for number in numbers]


@cache
def _loaded(compiler: str, name: str, defines: tuple[str, ...]) -> ctypes.CDLL:
    return ctypes.CDLL(str(_built(compiler, Path(__file__).with_name(f"{name}.cpp"), defines)))


def _built(compiler: str, source: Path, defines: tuple[str, ...]) -> Path:
    """Kept in the user's cache, by what it was made from: the processor too, for which alone it is good."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flashgate-demo"
    made_from = (source.read_bytes(), _processor(), repr((compiler, COMPILE, LINK, defines)).encode())
    path = base / f"{source.stem}-{hashlib.sha256(b'|'.join(made_from)).hexdigest()[:16]}.so"
    if not path.exists():
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=base) as scratch:
            compiled, built = Path(scratch, "compiled.o"), Path(scratch, path.name)
            _run(compiler, *COMPILE, *defines, str(source), "-o", str(compiled))
            _run(compiler, *LINK, str(compiled), "-o", str(built))
            built.replace(path)
    return path


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)} failed; {ENVIRONMENT}=0 does without it:\n{done.stderr}")


def _processor() -> bytes:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return b""
    return b"".join(line for line in info.read_bytes().splitlines() if line.startswith((b"model name", b"flags")))
