"""Which expert gives way under each policy, and what that is worth on traces as skewed as the real model's."""

import pytest

from edge.experts.policies import DecayedLfu, ExpertKey, Lru, Policy, Ranked
from edge.experts.simulate import POLICIES, Belady, Outcome, compare, simulate, uses_per_pass
from edge.experts.trace import Access
from tests.unit.edge.experts.skewed_traces import COVERAGE, popularity, skewed_trace

A, B, C, D = (ExpertKey(0, expert) for expert in range(4))


def used(policy: Policy, *keys: ExpertKey, is_scan: bool = False) -> Policy:
    """Each use of a key that is not resident yet admits it."""
    for key in keys:
        policy.use(key, is_scan=is_scan)
        if not is_resident(policy, key):
            policy.admit(key, is_scan=is_scan)
    return policy


def is_resident(policy: Policy, key: ExpertKey) -> bool:
    everything = {A, B, C, D}
    return policy.victim(everything - {key}) == key


def order(policy: Policy) -> list[ExpertKey]:
    """All resident keys, as they would give way."""
    victims = []
    while (victim := policy.victim(set())) is not None:
        policy.remove(victim)
        victims.append(victim)
    return victims


def test_a_half_life_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="half_life is 0"):
        DecayedLfu(0)


def test_lru_goes_by_the_last_use() -> None:
    assert order(used(Lru(resists_scans=False), A, B, C, A)) == [B, C, A]


def test_a_scan_counts_in_plain_lru_only() -> None:
    for resists_scans, expected in ((False, [B, A, C]), (True, [C, A, B])):
        policy = used(Lru(resists_scans=resists_scans), A, B)
        assert order(used(policy, A, C, is_scan=True)) == expected


def test_lfu_goes_by_the_number_of_uses() -> None:
    assert order(used(DecayedLfu(1000), A, A, A, B, C, C)) == [B, C, A]


def test_lfu_forgets_old_uses() -> None:
    assert order(used(DecayedLfu(1), A, A, A, B, B)) == [A, B]


def test_lfu_remembers_the_uses_of_what_gave_way() -> None:
    policy = used(DecayedLfu(1000), A, A, A, B, B)
    policy.remove(A)
    assert order(used(policy, C, A)) == [C, B, A]


def test_lfu_lets_what_a_scan_brought_last_give_way_first() -> None:
    policy = used(DecayedLfu(1000), A)
    assert order(used(policy, B, C, D, A, is_scan=True)) == [D, C, B, A]


def test_lfu_keeps_its_order_over_any_number_of_uses() -> None:
    policy = DecayedLfu(2)
    for _ in range(3000):  # the weight of a use doubles every second time: far beyond what a float holds
        used(policy, A, B, B, C, C, C, C)
    assert order(policy) == [A, B, C]


def test_belady_keeps_what_comes_next() -> None:
    trace = [Access(step, 0, (expert,), False) for step, expert in enumerate((0, 1, 2, 1, 0))]
    assert simulate(trace, Belady(trace), 2) == Outcome(5, 1, 5, 1)
    assert simulate(trace, Belady(trace), 3) == Outcome(5, 2, 5, 2)


def test_belady_of_decoding_keeps_nothing_for_prompts() -> None:
    """When 2 comes, 3 is needed sooner than 1, but by a prompt."""
    trace = [Access(step, 0, (expert,), expert == 3) for step, expert in enumerate((1, 3, 2, 3, 1))]
    assert simulate(trace, Belady(trace), 2) == Outcome(5, 1, 3, 0)
    assert simulate(trace, Belady(trace, of_decoding=True), 2) == Outcome(5, 1, 3, 1)


def test_the_lowest_rank_is_found_among_outdated_ones() -> None:
    ranked = Ranked()
    for turn in range(500):
        for key in (A, B, C):
            ranked[key] = ((turn * (key.expert + 3)) % 7, turn)
    assert ranked.lowest(set()) == min((A, B, C), key=lambda key: (499 * (key.expert + 3)) % 7)
    del ranked[A]
    assert ranked.lowest({B}) == C
    assert ranked.lowest({B, C}) is None


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("num_slots", [1, 3, 10])
def test_more_experts_than_slots_pass_through(name: str, num_slots: int) -> None:
    trace = [Access(step, 0, tuple(range(8)), False) for step in range(3)]
    outcome = compare(trace, [name], [num_slots])[num_slots][0]
    assert outcome.lookups == 24
    assert outcome.hits == (16 if num_slots == 10 else outcome.hits)


def test_the_uses_of_a_pass_are_those_of_decoding() -> None:
    trace = [Access(0, 0, (1, 2, 3, 4, 5, 6), True), Access(1, 0, (1, 2), False), Access(1, 1, (3, 4), False)]
    assert uses_per_pass(trace) == 4
    assert uses_per_pass(trace[:1]) == 6
    assert uses_per_pass([]) == 1


def test_synthetic_traces_are_as_skewed_as_they_claim() -> None:
    shares = popularity(512)
    assert all(shares[:count].sum() == pytest.approx(covered) for count, covered in COVERAGE.items())


@pytest.mark.parametrize("swaps_per_step", [0.1, 1.0])
@pytest.mark.parametrize("slots_per_layer", [16, 64])
def test_the_engines_policy_beats_lru_on_skewed_traces(slots_per_layer: int, swaps_per_step: float) -> None:
    trace = list(skewed_trace(160, num_layers=2, swaps_per_step=swaps_per_step))
    outcomes = compare(trace, ["lru", "scan-lru", "lfu", "belady"], [2 * slots_per_layer])[2 * slots_per_layer]
    lru, scan_lru, lfu, belady = (outcome.decode_hit_rate for outcome in outcomes)
    assert lru == scan_lru
    assert lru + 0.01 < lfu < belady


def test_prompts_in_between_cost_the_engines_policy_little() -> None:
    calm = list(skewed_trace(120, num_layers=2))
    crossed = list(skewed_trace(120, num_layers=2, prompt_every=20))
    rates = {}
    for trace in (calm, crossed):
        lru, lfu = compare(trace, ["lru", "lfu"], [128])[128]
        rates[len(trace)] = lru.decode_hit_rate, lfu.decode_hit_rate
    (calm_lru, calm_lfu), (crossed_lru, crossed_lfu) = rates.values()
    assert crossed_lfu > calm_lfu - 0.05
    assert crossed_lru < calm_lru - 0.05
