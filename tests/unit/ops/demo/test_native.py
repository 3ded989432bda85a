"""Building the C++ of training: an aid that may be missing, but never fails silently."""

from pathlib import Path

import pytest

from ops.demo.network.native import ENVIRONMENT, library


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    return tmp_path / "flashgate-demo"


def test_a_compiler_that_fails_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(OSError, match=rf"false .*convolution[.]cpp.* failed; {ENVIRONMENT}=0 does without it"):
        library("convolution", taps=4)
    assert list(cache.iterdir()) == []


def test_without_a_compiler_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert library("convolution", taps=4) is None


def test_the_environment_can_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, "0")
    assert library("convolution", taps=4) is None
