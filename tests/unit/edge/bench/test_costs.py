"""The sample of a model that stands for all of it, and what is made of its times."""

import dataclasses
from pathlib import Path

import pytest

from edge.bench.costs import measure_costs, sample_config, scaled, typical
from edge.checkpoint.pack import Pack
from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.cli import main
from edge.config import FULL_ATTENTION, LINEAR_ATTENTION, ModelConfig
from edge.profiling import ATTENTION, DELTANET, DISK_WAIT, EXPERTS, HEAD, KINDS, ROUTER


def with_layers(*layer_types: str, vocab_size: int = 512) -> ModelConfig:
    return dataclasses.replace(
        SMALL, num_layers=len(layer_types), layer_types=layer_types, vocab_size=vocab_size, tie_embeddings=False
    )


def test_a_sample_has_each_kind_of_layer() -> None:
    late = with_layers(*[LINEAR_ATTENTION] * 6, FULL_ATTENTION, LINEAR_ATTENTION, vocab_size=50_000)
    sample = sample_config(late)
    assert sample.layer_types == late.layer_types[:7]
    assert sample.vocab_size == 8192
    assert sample_config(with_layers(LINEAR_ATTENTION)).num_layers == 1
    assert sample_config(with_layers(*[FULL_ATTENTION] * 9)).num_layers == 4


def test_times_are_scaled_by_what_there_is_more_of() -> None:
    config = with_layers(*[LINEAR_ATTENTION] * 9, *[FULL_ATTENTION] * 3, vocab_size=1024)
    part = with_layers(LINEAR_ATTENTION, LINEAR_ATTENTION, LINEAR_ATTENTION, FULL_ATTENTION)
    costs = scaled(dict.fromkeys(KINDS, 1.0), 8, config, part)
    kinds = (ATTENTION, DELTANET, ROUTER, HEAD)
    assert [costs.pass_seconds[kind] for kind in kinds] == [3, 3, 3, 2]
    assert costs.expert_seconds == 1 / 8
    assert not {EXPERTS, DISK_WAIT} & costs.pass_seconds.keys()


def test_the_typical_pass_is_not_moved_by_a_disturbed_one() -> None:
    passes = [dict.fromkeys(KINDS, seconds) for seconds in (1.0, 2.0, 90.0)]
    assert typical(passes) == dict.fromkeys(KINDS, 2.0)


@pytest.mark.parametrize("bits", ["16", "4"])
def test_a_packs_first_layers_are_run_without_its_disk(tmp_path: Path, bits: str) -> None:
    write_random_checkpoint(tmp_path / "checkpoint", tokenizer=False)
    assert main(["convert", str(tmp_path / "checkpoint"), str(tmp_path / "pack"), "--bits", bits]) == 0
    costs = measure_costs(Pack.open(tmp_path / "pack"), sequences=2, threads=1, seconds=0.01)
    assert costs.expert_seconds > 0
    assert all(costs.pass_seconds[kind] > 0 for kind in (ATTENTION, DELTANET, HEAD, ROUTER))
