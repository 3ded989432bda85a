"""The kernels built for 64-bit Arm, run by qemu: every variant computes what the numpy reference does.

`ops/tools` provides the cross-compiler and qemu; without them the tests are skipped.
"""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.kernel_vectors import Case, all_cases, write_vectors

NATIVE = Path(__file__).parents[2] / "edge" / "native"
COMPILER, QEMU, CMAKE = "aarch64-linux-gnu-g++", "qemu-aarch64-static", "cmake"

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, (COMPILER, QEMU, CMAKE))), reason=f"{COMPILER}, {QEMU} and {CMAKE} are not installed"
)


@pytest.fixture(scope="module")
def selftest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, cross-compiled with warnings as errors."""
    build = tmp_path_factory.mktemp("arm64")
    options = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={COMPILER}"]
    options += ["-DCMAKE_BUILD_TYPE=Release", "-DFLASHGATE_CORE_ONLY=ON", "-DFLASHGATE_WERROR=ON"]
    subprocess.run([CMAKE, "-S", NATIVE, "-B", build, *options], check=True, stdout=subprocess.DEVNULL)
    jobs = str(os.cpu_count() or 1)
    subprocess.run([CMAKE, "--build", build, "--parallel", jobs], check=True, stdout=subprocess.DEVNULL)
    return build / "selftest"


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return all_cases()


def run(selftest: Path, cpu: str, vectors: Path) -> subprocess.CompletedProcess[str]:
    """On an emulated CPU."""
    command = [QEMU, "-cpu", cpu, "-L", "/usr/aarch64-linux-gnu", str(selftest), str(vectors)]
    return subprocess.run(command, text=True, capture_output=True, check=False)


@pytest.mark.parametrize(("cpu", "variants"), [("max", ["neon", "portable"]), ("cortex-a53", ["portable"])])
def test_every_variant_computes_what_the_reference_does(
    cpu: str, variants: list[str], selftest: Path, cases: list[Case], tmp_path: Path
) -> None:
    write_vectors(tmp_path / "vectors", cases)
    done = run(selftest, cpu, tmp_path / "vectors")
    assert done.returncode == 0, done.stdout + done.stderr
    found = [line.split()[:3] for line in done.stdout.splitlines()]
    assert found == [["ok", variant, case.name] for variant in variants for case in cases]


def test_a_wrong_result_is_told(selftest: Path, cases: list[Case], tmp_path: Path) -> None:
    wrong = cases[-2].expected.copy()
    wrong[0] += 0.01
    write_vectors(tmp_path / "vectors", [cases[0], replace(cases[-2], expected=wrong)])
    done = run(selftest, "max", tmp_path / "vectors")
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ok", "WRONG"] * 2


def test_a_file_that_ends_early_is_told(selftest: Path, cases: list[Case], tmp_path: Path) -> None:
    write_vectors(tmp_path / "vectors", cases)
    (tmp_path / "vectors").write_bytes((tmp_path / "vectors").read_bytes()[:-8])
    done = run(selftest, "max", tmp_path / "vectors")
    assert (done.returncode, done.stderr) == (2, "selftest: the file ends early\n")
