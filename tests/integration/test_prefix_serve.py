"""Prefix reuse through the server: between turns and restarts, never between tenants, and nothing of it in the logs."""

import stat
import subprocess
from pathlib import Path

import pytest

from tests.integration.edge_node import Answer, EdgeNode, Request, ids_request, make_pack
from tests.integration.harness import Processes, command, eventually

MARK = 487  # an id that would be noticed
SYSTEM = [*range(3, 80), MARK, MARK, *range(80, 130)]
TENANT = "tenant-to-be-noticed"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("model"), tokenizer=False, ends=False)


def turn(*ids: int, tenant: str = TENANT) -> Request:
    request = ids_request(*SYSTEM, *ids, max_tokens=20)
    request.tenant = tenant
    return request


def on_disk(directory: Path) -> tuple[str, ...]:
    return ("--prefix-dir", str(directory), "--prefix-disk", "100MB")


def reused(answer: Answer) -> int:
    return int(answer.finished.reused_prompt_tokens)


def wait_for_files(directory: Path, count: int) -> None:
    eventually(lambda: len(list(directory.glob("*.prefix"))) >= count, f"{count} snapshots on disk")


def test_a_chat_goes_on_after_a_restart_and_after_a_crash(processes: Processes, pack: Path, tmp_path: Path) -> None:
    directory = tmp_path / "prefixes"
    first = EdgeNode(processes, pack, *on_disk(directory))
    begun = first.answer(turn())
    assert reused(begun) == 0
    wait_for_files(directory, 2)
    assert first.process.stop() == 0
    first.channel.close()

    second = EdgeNode(processes, pack, *on_disk(directory))
    went_on = second.answer(turn(*begun.ids, 5, 6, 7))
    assert reused(went_on) == len(SYSTEM) + 19
    assert reused(second.answer(turn(*begun.ids, 5, 6, 7, tenant="another"))) == 0
    second.kill_engine()
    eventually(lambda: second.status().engine_restarts == 1 and second.is_ready(), "another engine")
    again = second.answer(turn(*begun.ids, 5, 6, 7))
    assert (again.ids, reused(again) >= len(SYSTEM) - 8) == (went_on.ids, True)
    logs = second.process.stderr()
    second.close()

    plain = EdgeNode(processes, pack, "--prefix-memory", "0")
    fresh = plain.answer(turn(*begun.ids, 5, 6, 7))
    assert (fresh.ids, reused(fresh)) == (went_on.ids, 0)
    plain.close()
    assert str(MARK) not in logs
    assert TENANT not in logs
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_without_a_directory_nothing_reaches_the_disk(processes: Processes, pack: Path, tmp_path: Path) -> None:
    node = EdgeNode(processes, pack)
    node.answer(turn())
    assert reused(node.answer(turn(9))) >= len(SYSTEM) - 8
    assert not list(tmp_path.rglob("*.prefix"))
    node.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--prefix-dir", "{}/open", "--prefix-disk", "1GB"), "open to other users (mode 755): chmod 700"),
        (("--prefix-dir", "{}/none/deeper", "--prefix-disk", "1GB"), "deeper: No such file or directory"),
        (("--prefix-dir", "{}/new"), "go together"),
        (("--prefix-disk", "1GB"), "go together"),
    ],
)
def test_a_directory_that_will_not_do_stops_the_server_in_one_line(
    pack: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    arguments = [option.format(tmp_path) for option in options]
    argv = [command("flashgate-edge"), "serve", str(pack), "--port", "0", "--metrics-port", "0", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
