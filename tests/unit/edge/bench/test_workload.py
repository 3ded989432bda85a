"""Prompts and completions of random ids, the same for the same seed."""

import numpy as np
import pytest

from edge.bench.measure import engine_context
from edge.bench.workload import RandomIds, Workload
from edge.budget import pool_tokens
from edge.errors import RequestError


@pytest.mark.parametrize(
    ("field", "value", "least"),
    [("prompt_tokens", 0, 1), ("tokens", 0, 1), ("warmup", -1, 0), ("sequences", 0, 1), ("seed", -1, 0)],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: int, least: int) -> None:
    with pytest.raises(RequestError, match=f"{field} is {value}: it must be at least {least}"):
        Workload(**{field: value})


def test_prompts_differ_by_seed_round_and_sequence_and_by_nothing_else() -> None:
    workload = Workload(prompt_tokens=16, sequences=2)
    first, second = workload.prompts(1000, 0)
    assert len(first) == 16
    assert min(first) >= 0
    assert max(first) < 1000
    others = [second, *workload.prompts(1000, 1), *Workload(prompt_tokens=16, seed=1).prompts(1000, 0)]
    assert first not in others
    assert Workload(prompt_tokens=16, tokens=3).prompts(1000, 0) == [first]


def test_a_completion_is_of_random_ids_that_end_nothing() -> None:
    ids = RandomIds(max_tokens=8, vocab_size=4, end_ids=frozenset({0, 2}), seed=3)
    logits = np.array([9, 0, 0, 0], np.float32)
    draw, again = ids.sampler(), ids.sampler()
    drawn = [draw.draw(logits) for _ in range(50)]
    assert set(drawn) == {1, 3}
    assert [again.draw(logits) for _ in range(50)] == drawn


@pytest.mark.parametrize("sequences", [1, 2, 3, 8])
def test_all_sequences_fit_the_pool_of_the_context_asked_for(sequences: int) -> None:
    workload = Workload(prompt_tokens=100, tokens=7, sequences=sequences)
    assert pool_tokens(sequences, engine_context(workload)) >= sequences * workload.sequence_tokens
