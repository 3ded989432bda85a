"""The stand-in without a server: events, failures, and what they leave in the metrics."""

import asyncio
from contextlib import aclosing

import pytest
from prometheus_client import CollectorRegistry

from cloud_stub.cloud import Cloud, Delta, Finished
from cloud_stub.errors import CutError, InjectedError, RequestError, StartError, StoppingError
from cloud_stub.metrics import Metrics
from cloud_stub.request import ChatRequest, Message, Sampling
from cloud_stub.scenario import FailureDice, Scenario
from cloud_stub.status import Status

REQUEST = ChatRequest("id", (Message("user", "three words here"),), Sampling())


class Stand:
    """A cloud and its metrics."""

    def __init__(self, scenario: Scenario) -> None:
        self._registry = CollectorRegistry()
        self.cloud = Cloud("m", "one two three", scenario, Metrics(self._registry, "m"))

    async def ask(self) -> list[Delta | Finished]:
        return [event async for event in self.cloud.generate(REQUEST)]

    def ended(self, error_type: str) -> float | None:
        labels = {"lane": "cloud", "model": "m", "error_type": error_type}
        return self._registry.get_sample_value("gen_ai_server_request_duration_seconds_count", labels)

    def in_flight(self) -> float | None:
        return self._registry.get_sample_value("flashgate_cloud_stub_requests_in_flight")


async def test_an_answer_is_its_words_and_a_count() -> None:
    stand = Stand(Scenario())
    assert await stand.ask() == [Delta("one"), Delta(" two"), Delta(" three"), Finished("stop", 3, 3)]
    assert (stand.ended(""), stand.in_flight()) == (1, 0)


@pytest.mark.parametrize(
    ("scenario", "error", "error_type"),
    [
        (Scenario(status=Status.parse("429")), InjectedError, "status"),
        (Scenario(fail_rate=1), InjectedError, "status"),
        (Scenario(cut_after=0), CutError, "cut"),
        (Scenario(cut_after=3), CutError, "cut"),
        # A failure at the door comes before one that would wait or break.
        (Scenario(fail_rate=1, hang=True, cut_after=1), InjectedError, "status"),
    ],
)
async def test_a_failure_is_raised_and_counted(scenario: Scenario, error: type[Exception], error_type: str) -> None:
    stand = Stand(scenario)
    with pytest.raises(error):
        await stand.ask()
    assert (stand.ended(error_type), stand.ended(""), stand.in_flight()) == (1, None, 0)


async def test_a_cut_beyond_the_answer_cuts_nothing() -> None:
    assert len(await Stand(Scenario(cut_after=4)).ask()) == 4


async def test_a_reader_that_leaves_is_counted_as_cancelled() -> None:
    stand = Stand(Scenario())
    async with aclosing(stand.cloud.generate(REQUEST)) as events:
        await anext(events)
        assert stand.in_flight() == 1
    assert (stand.ended("cancelled"), stand.in_flight()) == (1, 0)


async def test_stopping_ends_what_hangs() -> None:
    stand = Stand(Scenario(hang=True))
    asking = asyncio.create_task(stand.ask())
    await asyncio.sleep(0)
    assert not asking.done()
    stand.cloud.stop()
    with pytest.raises(StoppingError):
        await asking
    assert stand.ended("stopping") == 1


def test_the_dice_hit_their_share_and_a_status_alone_hits_all() -> None:
    dice = FailureDice(Scenario(fail_rate=0.3, seed=1))
    assert 250 < sum(dice.throw() is not None for _ in range(1000)) < 350
    assert FailureDice(Scenario()).throw() is None
    assert FailureDice(Scenario(status=Status.parse("404"))).throw() == Status.parse("404")
    assert FailureDice(Scenario(status=Status.parse("404"), fail_rate=0)).throw() is None


@pytest.mark.parametrize(
    "values",
    [
        {"ttft_s": -1.0},
        {"ttft_s": float("nan")},
        {"ttft_s": float("inf")},
        {"tokens_per_second": 0.0},
        {"tokens_per_second": float("nan")},
        {"fail_rate": -0.1},
        {"fail_rate": float("nan")},
        {"cut_after": -1},
    ],
)
def test_a_scenario_out_of_range_names_its_option(values: dict[str, float]) -> None:
    (name,) = values
    with pytest.raises(StartError, match=f"--{name.removesuffix('_s').replace('_', '-')}"):
        Scenario(**values)  # type: ignore[arg-type]  # cut_after is an int; the dict is typed for all


@pytest.mark.parametrize(
    "values",
    [{"top_k": -1}, {"min_p": 1.0}, {"top_p": 0.0}, {"temperature": 2.5}, {"stop": ("",)}, {"stop": ("x",) * 17}],
)
def test_sampling_out_of_range_names_its_field(values: dict[str, object]) -> None:
    (name,) = values
    with pytest.raises(RequestError, match=name):
        Sampling(**values)  # type: ignore[arg-type]  # one field of many types
