"""Stand-ins for missing experts: what holds of every choice, and nothing of it where nothing is missing."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import kernels
from edge.checkpoint.random_model import SMALL
from edge.deviation import Deviation
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.layers.leeway import SURE_PART, Leeway, surest
from edge.sampler import SamplingParams

NUM_EXPERTS = 24
IDS = [(7 * i + i * i) % SMALL.vocab_size for i in range(40)]
PARAMS = SamplingParams(max_tokens=10, temperature=0.8, seed=3)
OPTIONS = EngineOptions(2_000_000_000, 64)

seeds = st.integers(0, 2**32)
limits = st.floats(0.001, 1.0)
residents = st.frozensets(st.integers(0, NUM_EXPERTS - 1))


def random_logits(seed: int, rows: int) -> np.ndarray:
    return 2 * np.random.default_rng(seed).standard_normal((rows, NUM_EXPERTS), np.float32)


@given(seeds, st.integers(1, 12), limits, residents)
def test_one_token_keeps_what_is_sure_large_or_here_and_fills_up_with_the_likeliest_that_are_here(
    seed: int, top_k: int, limit: float, here: frozenset[int]
) -> None:
    logits = random_logits(seed, 1)
    choice = Leeway(Deviation(top_k, top_k, limit)).choose(logits, here.__contains__)
    (own,), (shares,) = kernels.route(logits, top_k)
    order = np.argsort(-logits[0]).tolist()
    weights = dict(zip(own.tolist(), shares.tolist(), strict=True))
    sure = order[: -(-top_k // SURE_PART)]
    may_go = [
        expert for expert in order[:top_k] if expert not in here and expert not in sure and weights[expert] < limit
    ]
    may_come = [expert for expert in order[top_k:] if expert in here][: len(may_go)]
    gone = may_go[len(may_go) - len(may_come) :]
    assert set(choice.experts[0].tolist()) == (set(order[:top_k]) - set(gone)) | set(may_come)
    assert choice.spared == tuple(sorted(gone))


@given(seeds, st.integers(1, 6), st.integers(1, 12), limits, residents)
def test_what_holds_of_every_choice(seed: int, rows: int, top_k: int, limit: float, here: frozenset[int]) -> None:
    logits = random_logits(seed, rows)
    leeway = Leeway(Deviation(top_k, top_k, limit))
    choice = leeway.choose(logits, here.__contains__)
    own, own_shares = kernels.route(logits, top_k)
    used = set(choice.experts.ravel().tolist())
    assert (np.diff(choice.experts, axis=1) > 0).all()  # rising, and so none twice
    assert choice.shares.sum(1) == pytest.approx(np.ones(rows), abs=1e-5)
    for row in range(rows):
        taken, routed = set(choice.experts[row].tolist()), set(own[row].tolist())
        assert set(surest(logits[row], own[row])) <= taken
        assert leeway.last[row, 1] == len(taken - routed) <= top_k - -(-top_k // SURE_PART)
        assert all(expert in here or any(expert in own[other] for other in range(rows)) for expert in taken - routed)
        if taken == routed:
            assert choice.shares[row].tobytes() == own_shares[row].tobytes()
    assert ((leeway.last[:, 2] > 0) & (leeway.last[:, 2] <= 1 + 1e-6)).all()
    assert not used & set(choice.spared)
    assert set(choice.spared) <= set(own.ravel().tolist()) - here
    again = Leeway(Deviation(top_k, top_k, limit)).choose(logits, here.__contains__)
    assert again.experts.tobytes() == choice.experts.tobytes()
    assert again.shares.tobytes() == choice.shares.tobytes()


def answer(engine: Engine, ids: list[int]) -> list[int]:
    return list(engine.generate(ids, PARAMS))


@pytest.fixture(scope="module")
def plain(pack_path: Path) -> list[int]:
    engine = Engine.load(pack_path, OPTIONS)
    tokens = answer(engine, IDS)
    engine.close()
    return tokens


@settings(max_examples=5, deadline=None)
@given(limit=limits)
def test_with_all_experts_in_ram_the_answer_is_the_models_own(pack_path: Path, plain: list[int], limit: float) -> None:
    engine = Engine.load(pack_path, EngineOptions(2_000_000_000, 64, substitute=limit))
    for start in range(0, SMALL.vocab_size, 64):  # every id once reads every expert of a model with random weights
        engine.logits(list(range(start, start + 64)))
    assert engine.stats().experts_resident == SMALL.num_layers * SMALL.num_experts
    assert answer(engine, IDS) == plain
    stats = engine.stats().routing
    assert (stats.substituted, stats.mean_weight_kept) == (0, 1.0)
    engine.close()


@settings(max_examples=10, deadline=None)
@given(slots=st.integers(4, 60), limit=limits, prefetch=st.booleans(), experts=st.integers(1, 4))
def test_an_engine_counts_what_its_requests_count_and_reads_what_it_uses(
    pack_path: Path, slots: int, limit: float, prefetch: bool, experts: int
) -> None:
    options = EngineOptions(
        2_000_000_000, 64, expert_slots=slots, prefetch=prefetch, substitute=limit, experts_per_token=experts
    )
    engine = Engine.load(pack_path, options)
    for job in range(3):
        engine.submit(job, IDS[: 5 + job], PARAMS)
    requests = []
    while engine.has_work:
        requests += [event.stats for event in engine.step() if hasattr(event, "stats")]
    totals, stats = engine.stats().routing, engine.stats()
    rows = sum(request.prompt_tokens + request.completion_tokens - 1 for request in requests)
    assert totals.routings == sum(request.routing.routings for request in requests) == rows * SMALL.num_layers
    assert totals.substituted == sum(request.routing.substituted for request in requests)
    assert totals.weight_kept == pytest.approx(sum(request.routing.weight_kept for request in requests))
    assert stats.expert_hits <= stats.expert_lookups <= totals.routings * experts
    engine.close()
