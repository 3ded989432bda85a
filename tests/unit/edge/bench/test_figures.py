"""From counters to the reported values, and their table."""

import dataclasses
import json
from typing import Any

import pytest

from edge.bench.figures import figures, loads, memory_figures, quartiles
from edge.bench.footprint import GROUP, PROCESS, Footprint
from edge.bench.measure import Measured
from edge.bench.roofs import DISK, Load
from edge.bench.table import table
from edge.deviation import RoutingCounts
from tests.unit.edge.bench.samples import FAST, MEASURED, SLOW, WEIGHTS, phase

# What the project's own scripts and its users' dashboards read.
PROMISED = {
    "decode_tokens_per_second",
    "decode_roof_share",
    "prefill_tokens_per_second",
    "prefill_roof_share",
    "ttft_seconds",
    "expert_bytes_per_token",
    "cache_hit_rate",
    "disk_bytes_per_second",
    "ram_bytes_per_second",
    "peak_memory_bytes",
}
CONDITIONS = {
    "model": "m",
    "num_layers": 4,
    "num_experts": 8,
    "top_k": 2,
    "own_top_k": 2,
    "substitute": None,
    "bits": 4,
    "cpu": "a CPU",
    "kernels": "portable",
    "threads": 2,
    "sequences": 2,
    "prompt_tokens": 8,
    "tokens": 4,
    "expert_slots": 6,
    "streamed_layers": 0,
    "chunk_tokens": 4,
}


IN_GROUP = Footprint(2_000_000, 3000, GROUP)


def report(footprint: Footprint = IN_GROUP) -> dict[str, Any]:
    return CONDITIONS | figures(MEASURED, WEIGHTS, (SLOW, FAST), 2) | memory_figures(footprint, 3_000_000)


def test_the_promised_keys_are_there_and_json() -> None:
    assert report().keys() >= PROMISED
    assert json.loads(json.dumps(report())) == report()


def test_the_loads_are_the_weights_of_each_pass_and_the_experts_looked_up() -> None:
    decode, prefill = loads(MEASURED, WEIGHTS)
    assert decode == Load(disk_bytes=300, ram_bytes=4 * 1000 + 40 * 10)
    assert prefill == Load(disk_bytes=300, ram_bytes=2 * 900 + 40 * 10 + 100)


def test_rates_and_shares_follow_from_the_counters() -> None:
    values = report()
    assert values["decode_tokens_per_second"] == 0.8
    assert values["decode_tokens_per_second_per_sequence"] == 0.4
    assert values["expert_bytes_per_token"] == 300 / 8
    assert values["cache_hit_rate"] == 0.25
    # 4400 bytes of RAM at 2000 a second, 300 of disk at 200, in 10 seconds.
    assert values["decode_roof_share"] == pytest.approx(0.22)
    assert values["decode_roof_share_range"] == pytest.approx([0.44 / 3, 0.44])
    # 300 bytes of disk at 200, 2300 of RAM at 2000, in 4 seconds.
    assert (values["prefill_roof_share"], values["prefill_bound_by"]) == (0.375, DISK)
    assert values["decode_disk_bytes_per_second"] == 300


def test_memory_sampled_while_decoding_stands_for_memory_measured_around_it() -> None:
    values = figures(MEASURED, WEIGHTS, (SLOW, FAST), 2, ram_rates=[500.0, 1000.0, 1000.0, 1000.0])
    # 4400 bytes: a quarter of them at 500 a second, the others at 1000.
    assert values["decode_roof_share"] == pytest.approx(0.55)
    assert values["decode_roof_share_range"] == pytest.approx([0.44, 4400 / 875 / 10])
    assert values["ram_bytes_per_second"] == 800
    assert values["prefill_roof_share"] == 0.375


def test_a_run_without_reads_or_look_ups_has_figures_too() -> None:
    idle = phase(pass_seconds=(1.0,), tokens=2, lookups=0, hits=0, disk_seconds=0.0)
    values = CONDITIONS | figures(dataclasses.replace(MEASURED, decode=idle), WEIGHTS, (SLOW,), 1)
    assert (values["cache_hit_rate"], values["decode_disk_bytes_per_second"]) == (1.0, None)
    assert values["decode_pass_seconds_quartiles"] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("values", "expected"), [([5.0], [5, 5, 5]), ([1.0, 2, 3, 4, 5], [2, 3, 4])])
def test_quartiles(values: list[float], expected: list[float]) -> None:
    assert quartiles(values) == expected


def test_the_table_says_what_matters() -> None:
    text = table(report())
    for words in (
        "m: 4 layers, 8 experts, 2 per token, 4 bits",
        "6 of 32 experts fit",
        "decode                0.80 tokens/s, 0.40 each, 0.22 of the RAM roof (0.15 to 0.44)",
        "a pass takes        2500.0 ms, half of them 1750.0 to 3250.0; 4 passes",
        "prompt                2.00 tokens/s",
        "disk wait            75% ██████████████████       ",
        "2.0 MB of 3.0 MB (of the control group, 3 kB of it page cache)",
    ):
        assert words in text, words
    assert all(len(line) < 120 for line in text.splitlines())
    assert "attention" not in text  # took no time


def test_a_run_that_may_deviate_says_how_far_it_did() -> None:
    decode = dataclasses.replace(MEASURED.decode, routing=RoutingCounts(32, 12, 31.2))
    values = figures(dataclasses.replace(MEASURED, decode=decode), WEIGHTS, (SLOW, FAST), 2)
    assert values["substituted_experts_per_token"] == pytest.approx(12 / decode.tokens)
    conditions = CONDITIONS | {"own_top_k": 8, "substitute": 0.5}
    text = table(conditions | values | memory_figures(IN_GROUP, 3_000_000))
    assert "a token deviates    2 experts per layer for its own 8, 1.5 replaced; 97.5% of the router's weight" in text
    assert "deviates" not in table(report())


def test_the_table_of_a_model_without_experts_speaks_of_layers() -> None:
    idle = phase(pass_seconds=(1.0,), tokens=2, lookups=0, hits=0)
    run = Measured(idle, dataclasses.replace(idle, dense_read_bytes=8_000_000), 1.0, 0.0)
    dense = {"num_experts": 0, "top_k": 0, "own_top_k": 0, "expert_slots": 0, "streamed_layers": 3}
    values = figures(run, WEIGHTS, (SLOW, FAST), 1) | memory_figures(IN_GROUP, 3_000_000)
    assert values["dense_bytes_per_token"] == 4_000_000
    assert values["decode_bound_by"] == DISK
    text = table(CONDITIONS | values | dense)
    assert "no experts" in text
    assert "3 layers stream from disk, prompts in" in text
    assert "a token needs       4.0 MB from disk" in text


def test_reads_on_a_guess_are_told_where_there_were_any() -> None:
    guessing = dataclasses.replace(MEASURED.decode, prefetch_bytes=80_000_000, prefetch_wasted_bytes=8_000_000)
    values = figures(dataclasses.replace(MEASURED, decode=guessing), WEIGHTS, (SLOW, FAST), 2)
    text = table(CONDITIONS | values | memory_figures(IN_GROUP, 3_000_000))
    assert "read on a guess     10.0 MB per token, 1.0 MB of it wasted; recall 50.0%" in text
    assert "on a guess" not in table(report())


def test_the_table_of_a_process_without_a_group_says_whose_memory_it_is() -> None:
    assert "2.0 MB of 3.0 MB (of the process)" in table(report(Footprint(2_000_000, None, PROCESS)))
