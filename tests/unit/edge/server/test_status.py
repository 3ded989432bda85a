from pathlib import Path

import pytest

from edge.deviation import Deviation, RoutingCounts
from edge.server.admission import Admission
from edge.server.agreement import Agreement
from edge.server.pipe import Counters
from edge.server.rates import Rates
from edge.server.status import SENSORS_INTERVAL_S, NodeState, StatusSource
from edge.server.supervisor import EngineState
from tests.unit.edge.server.conftest import PlayedEngine


class LoadedEngine:
    """An engine whose process holds 2 kB."""

    state = EngineState.READY
    error = ""
    restarts = 3
    pid = 77


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for process, kilobytes in (("self", 1), ("77", 2)):
        (tmp_path / "proc" / process).mkdir(parents=True)
        (tmp_path / "proc" / process / "status").write_text(f"VmRSS:\t{kilobytes} kB\n")
    return tmp_path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def agreement() -> Agreement:
    return Agreement(Deviation(8, 8, 0.5))


@pytest.fixture
def source(played: PlayedEngine, root: Path, clock: Clock, agreement: Agreement) -> StatusSource:
    rates = Rates()
    admission = Admission(played, rates, 5)
    return StatusSource(
        LoadedEngine(),
        admission,
        rates,
        model="m",
        weight_bits=4,
        agreement=agreement,
        context_tokens=64,
        memory_budget_bytes=10_000,
        root=root,
        clock=clock,
    )


def test_a_status_says_what_its_parts_are_now(source: StatusSource, played: PlayedEngine, clock: Clock) -> None:
    played.num_sequences = 4
    clock.now += 7
    status = source()
    assert (status.state, status.queue_limit, status.running_limit, status.engine_restarts) == (
        NodeState.READY,
        5,
        4,
        3,
    )
    assert (status.uptime_s, status.memory_bytes, status.memory_budget_bytes) == (7.0, 3 * 1024, 10_000)


def test_the_machine_is_looked_at_once_a_second_however_many_ask(
    source: StatusSource, root: Path, clock: Clock
) -> None:
    source()
    (root / "proc/77/status").write_text("VmRSS:\t9 kB\n")
    clock.now += SENSORS_INTERVAL_S / 2
    assert source().memory_bytes == 3 * 1024
    clock.now += SENSORS_INTERVAL_S / 2
    assert source().memory_bytes == 10 * 1024


def test_a_node_that_drains_says_so_unless_its_engine_failed(source: StatusSource) -> None:
    source.is_draining = True
    assert source().state is NodeState.DRAINING


def test_a_status_says_how_far_answers_deviated_over_all_engines(source: StatusSource, agreement: Agreement) -> None:
    for _ in range(2):
        agreement.add(Counters(routings=10, substituted=3, weight_kept=9.5))
    status = source()
    assert (status.deviation, status.routing) == (Deviation(8, 8, 0.5), RoutingCounts(20, 6, 19.0))
