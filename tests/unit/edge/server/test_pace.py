import pytest

from edge.server.pace import Pace
from edge.server.pipe import Event, Failed, Finished, Started, Step, Token, Worked
from edge.server.rates import Rates


class Played:
    """An engine whose steps follow each other without a pause."""

    def __init__(self) -> None:
        self.rates = Rates()
        self.pace = Pace(self.rates)
        self.now = 1000.0

    def step(self, seconds: float, *events: Event) -> None:
        began = self.now
        self.now += seconds
        self.pace.follow(Step(began, self.now, list(events)))

    @property
    def prefill(self) -> tuple[float, float]:
        return self.rates.prefill.base_seconds, self.rates.prefill.tokens_per_second


@pytest.fixture
def engine() -> Played:
    return Played()


def test_the_first_token_ends_a_prompt_and_the_next_ones_are_decoding(engine: Played) -> None:
    engine.step(0.0, Started(1, 100))
    engine.step(1.5)
    engine.step(0.5, Token(1, 7))
    assert engine.prefill == (0.0, 50.0)
    assert engine.rates.decode.value == 0.0
    for _ in range(4):
        engine.step(0.25, Token(1, 7))
    assert engine.rates.decode.value == engine.rates.total_decode.value == pytest.approx(4.0)
    assert engine.rates.batch.value == pytest.approx(1.0)
    assert engine.prefill == (0.0, 50.0)


def test_time_without_work_counts_for_nothing(engine: Played) -> None:
    engine.step(0.0, Started(1, 100))
    engine.step(1.0, Token(1, 7), Finished(1, "length"))
    engine.now += 3600
    engine.step(0.0, Started(2, 100))
    engine.step(1.0, Token(2, 7))
    engine.step(0.5, Token(2, 7), Finished(2, "length"))
    assert engine.prefill == (0.0, 100.0)
    assert engine.rates.decode.value == 2.0


def test_side_by_side_each_has_its_own_rate_and_all_have_theirs(engine: Played) -> None:
    engine.step(1.0, Started(1, 10), Started(2, 10), Token(1, 7), Token(2, 7))
    for _ in range(10):
        engine.step(0.5, Token(1, 7), Token(2, 7))
    assert engine.rates.decode.value == pytest.approx(2.0)
    assert engine.rates.total_decode.value == pytest.approx(4.0)
    assert engine.rates.batch.value == pytest.approx(2.0)


def test_decoding_waits_for_others_prompts(engine: Played) -> None:
    engine.step(1.0, Started(1, 10), Token(1, 7))
    engine.step(0.0, Started(2, 500))
    engine.step(1.5)
    engine.step(0.5, Token(1, 7))
    assert engine.rates.decode.value == pytest.approx(0.5, rel=0.02)


def test_prompts_that_share_the_time_are_learned_together(engine: Played) -> None:
    engine.step(0.0, Started(1, 100), Started(2, 300))
    engine.step(2.0, Token(1, 7))
    engine.step(2.0, Token(1, 7), Token(2, 7))
    assert engine.rates.prefill.tokens_per_second == pytest.approx(100.0, rel=0.01)
    engine.step(0.0, Started(3, 200), Started(4, 200))
    engine.step(4.0, Token(3, 7), Token(4, 7))
    assert engine.rates.prefill.tokens_per_second == pytest.approx(100.0, rel=0.01)


def test_a_prompt_that_fails_teaches_nothing(engine: Played) -> None:
    engine.step(0.0, Started(1, 100))
    engine.step(9.0, Failed(1, "CancelledError", ""))
    engine.step(0.0, Started(2, 100))
    engine.step(1.0, Token(2, 7), Finished(2, "length"))
    assert engine.prefill == (0.0, 100.0)


def test_an_answer_of_no_token_ends_its_prompt_too(engine: Played) -> None:
    engine.step(1.0, Started(1, 100), Finished(1, "stop"))
    engine.step(1.0, Started(2, 100), Token(2, 7))
    engine.step(0.5, Token(2, 7))
    assert engine.prefill == (0.0, 100.0)
    assert engine.rates.decode.value == 2.0


def test_what_was_known_of_a_prompt_is_not_counted_as_computed(engine: Played) -> None:
    engine.step(1.0, Started(1, 100), Token(1, 7, Worked(reused_tokens=75)))
    assert engine.prefill == (0.0, 25.0)
    assert engine.rates.reuse.value == 0.75


def test_a_new_engine_begins_without_the_old_ones_requests(engine: Played) -> None:
    engine.step(1.0, Started(1, 100), Token(1, 7), Started(2, 50))
    engine.pace.forget()
    engine.now += 60
    engine.step(1.0, Started(3, 100), Token(3, 7))
    engine.step(0.5, Token(3, 7))
    assert engine.prefill == (0.0, 100.0)
    assert engine.rates.decode.value == 2.0
