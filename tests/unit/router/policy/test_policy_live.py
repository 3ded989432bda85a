"""Replacing the policy in force."""

import asyncio
import os
from pathlib import Path

import pytest

from router.errors import PolicyError
from router.policy import live
from router.policy.live import LivePolicy, PolicyEvent


def text(reason: str) -> str:
    return f"version: 1\ndefault: {{prefer: edge, reason: {reason}}}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(text("first"))
    return path


@pytest.fixture
def events() -> list[PolicyEvent]:
    return []


@pytest.fixture
def policies(path: Path, events: list[PolicyEvent]) -> LivePolicy:
    return LivePolicy.open(path, events.append)


def outcomes(events: list[PolicyEvent]) -> list[str]:
    return [event.outcome for event in events]


def test_a_bad_file_does_not_start(path: Path) -> None:
    path.write_text("version: 3")
    with pytest.raises(PolicyError):
        LivePolicy.open(path)


def test_without_a_file_the_built_in_policy_holds() -> None:
    policies = LivePolicy.open(None)
    before = policies.current
    policies.poll()
    assert policies.reload()
    assert policies.current is before


def test_a_changed_file_is_put_in_force(path: Path, policies: LivePolicy, events: list[PolicyEvent]) -> None:
    path.write_text(text("the_second"))
    policies.poll()
    assert policies.current.default.reason == "the_second"
    assert events[-1] == PolicyEvent("loaded", policies.current.hash)


def test_an_unchanged_file_is_left_alone(policies: LivePolicy, events: list[PolicyEvent]) -> None:
    policies.poll()
    assert outcomes(events) == ["loaded"]


def test_a_change_of_the_same_size_and_time_is_found_by_the_inode(path: Path, policies: LivePolicy) -> None:
    stat = path.stat()
    other = path.with_suffix(".new")
    other.write_text(text("other"))
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)
    policies.poll()
    assert policies.current.default.reason == "other"


@pytest.mark.parametrize("content", ["", "version: 2", "\x00", "default: [", text("x").replace("edge", "moon")])
def test_a_bad_file_keeps_the_old_policy_and_says_so(
    path: Path, policies: LivePolicy, events: list[PolicyEvent], content: str
) -> None:
    before = policies.current
    path.write_text(content)
    policies.poll()
    assert policies.current is before
    assert policies.error.startswith(f"{path}:")
    assert events[-1] == PolicyEvent("refused", before.hash, policies.error)


def test_failing_cases_keep_the_old_policy(path: Path, policies: LivePolicy) -> None:
    path.write_text(text("x") + "tests: [{name: fails, expect: {lane: cloud}}]\n")
    policies.poll()
    assert policies.current.default.reason == "first"
    assert "test 'fails' fails" in policies.error


def test_a_bad_file_is_reported_once(path: Path, policies: LivePolicy, events: list[PolicyEvent]) -> None:
    path.write_text("version: 2")
    policies.poll()
    policies.poll()
    assert outcomes(events) == ["loaded", "refused"]


def test_a_file_that_is_gone_keeps_the_old_policy_until_it_is_back(path: Path, policies: LivePolicy) -> None:
    path.unlink()
    policies.poll()
    assert "cannot be read" in policies.error
    path.write_text(text("again"))
    policies.poll()
    assert (policies.current.default.reason, policies.error) == ("again", "")


def test_a_fault_of_our_own_keeps_the_old_policy(policies: LivePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_path: Path) -> None:
        raise RecursionError("canary")

    monkeypatch.setattr(live, "load_file", fail)
    before = policies.current
    assert not policies.reload()
    assert policies.current is before
    assert policies.error.endswith("policy.yaml: RecursionError")


def test_a_reload_reads_an_unchanged_file_again(policies: LivePolicy, events: list[PolicyEvent]) -> None:
    assert policies.reload()
    assert outcomes(events) == ["loaded", "loaded"]


async def test_the_watcher_finds_a_change(path: Path) -> None:
    events: asyncio.Queue[PolicyEvent] = asyncio.Queue()
    policies = LivePolicy.open(path, events.put_nowait)
    await events.get()
    watcher = asyncio.create_task(policies.watch(interval_s=0.001))
    # Replaced in one step, so that no half of it is read.
    other = path.with_suffix(".new")
    other.write_text(text("watched"))
    other.replace(path)
    async with asyncio.timeout(10):
        assert (await events.get()).outcome == "loaded"
    assert policies.current.default.reason == "watched"
    watcher.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watcher
