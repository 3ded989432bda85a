"""API keys: who is let in, and what a broken file says."""

import hashlib
from pathlib import Path

import pytest

from router.errors import ConfigError, UnauthorizedError
from router.gateway.credentials import MAX_KEY_CHARS, Credentials


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture
def keys(tmp_path: Path) -> Credentials:
    path = tmp_path / "keys"
    path.write_text(f"# staff\nclinic {digest('k1')}\n\nlab {digest('k2').upper()}  # night shift\n")
    return Credentials.load(path)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["k1"],
        ["Bearer"],
        ["Bearer "],
        ["Basic k1"],
        ["Bearer k3"],
        ["Bearer k1 k1"],
        ["Bearer " + "k" * (MAX_KEY_CHARS + 1)],
        ["Bearer k1", "Bearer k1"],
        ["Bearer k1\udcff"],
    ],
)
def test_anything_but_one_known_key_is_refused_without_repeating_it(keys: Credentials, values: list[str]) -> None:
    with pytest.raises(UnauthorizedError) as caught:
        keys.tenant(values)
    assert "k1" not in str(caught.value)
    assert "k3" not in str(caught.value)


@pytest.mark.parametrize(("value", "tenant"), [("Bearer k1", "clinic"), ("bearer  k2 ", "lab")])
def test_key_names_its_tenant(keys: Credentials, value: str, tenant: str) -> None:
    assert keys.tenant([value]) == tenant


@pytest.mark.parametrize("values", [[], ["Bearer anything"], ["nonsense", "twice"]])
def test_without_a_file_everyone_is_the_default_tenant(values: list[str]) -> None:
    assert Credentials().tenant(values) == "default"


@pytest.mark.parametrize("line", ["clinic", "clinic sk-live-secret", f"Clinic {'a' * 64}", f"clinic {'a' * 64} more"])
def test_broken_line_is_named_by_number_and_not_repeated(tmp_path: Path, line: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f"lab {digest('k')}\n{line}\n")
    with pytest.raises(ConfigError, match="line 2") as caught:
        Credentials.load(path)
    assert "sk-live-secret" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"# none yet\n", b"\xff\xfe"])
def test_file_without_a_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=str(path)):
        Credentials.load(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: FileNotFoundError"):
        Credentials.load(tmp_path / "none")
