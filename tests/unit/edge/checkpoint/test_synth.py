"""Packs of random weights: whole or not there, sane to run, and routed as was asked."""

import errno
import os
import shutil
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge import kernels
from edge.checkpoint import synth as synth_module
from edge.checkpoint.geometries import GEOMETRIES, geometry
from edge.checkpoint.pack import Pack
from edge.checkpoint.precision import BITS
from edge.checkpoint.routing_skew import frequencies
from edge.checkpoint.summary import count_parameters
from edge.checkpoint.synth import Synthesis, SynthOptions
from edge.checkpoint.verify import Verification
from edge.cli import main
from edge.config import ModelConfig
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.errors import CheckpointError, PackError

SMALL = replace(
    geometry("qwen3.5-397b-a17b", num_layers=8, num_experts=64, vocab_size=1000),
    hidden_size=256,
    num_attention_heads=4,
    head_dim=64,
    rotary_dim=16,
    num_key_heads=2,
    num_value_heads=4,
    key_head_dim=32,
    value_head_dim=64,
    top_k=8,
    expert_size=64,
    shared_expert_size=64,
)
TINY = replace(
    SMALL,
    num_layers=5,
    layer_types=geometry("qwen3.5-397b-a17b", num_layers=5).layer_types,
    num_experts=9,
    vocab_size=70,
)


def make(out: Path, config: ModelConfig = TINY, **options: Any) -> Pack:
    with Synthesis(out, SynthOptions("tiny", config, **options)) as synthesis:
        synthesis.run(lambda _: None)
    return Pack.open(out)


def contents(pack: Path) -> dict[str, bytes]:
    return {str(path.relative_to(pack)): path.read_bytes() for path in pack.rglob("*") if path.is_file()}


@contextmanager
def running(pack: Pack, context_tokens: int) -> Iterator[Engine]:
    # Without guesses, which ask the routers too.
    options = EngineOptions(memory_bytes=2_000_000_000, context_tokens=context_tokens, prefetch=False)
    engine = Engine.load(pack.path, options)
    try:
        yield engine
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("name", "billions", "active"),
    [
        ("qwen3.5-397b-a17b", 396.35, 17.2),
        ("qwen3.5-122b-a10b", 122.1, 9.7),
        ("qwen3.5-35b-a3b", 34.7, 3.4),
        ("qwen3.5-9b", 8.95, 8.95),
        ("qwen3-8b", 8.19, 8.19),
    ],
)
def test_the_geometries_have_the_parameters_that_their_names_say(name: str, billions: float, active: float) -> None:
    parameters = count_parameters(GEOMETRIES[name])
    assert parameters.total / 1e9 == pytest.approx(billions, rel=0.002)
    assert parameters.active / 1e9 == pytest.approx(active, rel=0.02)


@pytest.mark.parametrize(("bits", "group"), [*((bits, 64) for bits in BITS), (3.4, 128)])
def test_a_synthetic_pack_is_sound_and_runs_at_any_bits(tmp_path: Path, bits: float, group: int) -> None:
    pack = make(tmp_path / "out", bits=bits, group=group)
    assert pack.manifest.contents.group == (0 if bits == 16 else group)
    assert not list(Verification(pack.path).run(lambda _: None))
    assert (pack.config, pack.manifest.contents.bits, pack.tokenizer_dir) == (TINY, bits, None)
    with running(pack, 64) as engine:
        logits = engine.logits(np.random.default_rng(0).integers(0, 70, 40).tolist())
    assert np.isfinite(logits).all()
    assert 0.5 < logits.std() < 2


@pytest.mark.parametrize("name", ["qwen3.5-9b", "qwen3-8b"])
def test_a_dense_pack_is_sound_and_its_state_keeps_its_size(tmp_path: Path, name: str) -> None:
    config = replace(geometry(name, num_layers=4, vocab_size=200), hidden_size=256, mlp_size=320)
    pack = make(tmp_path / "out", config)
    assert list(Verification(pack.path).run(lambda _: None)) == []
    with running(pack, context_tokens=64) as engine:
        logits = engine.logits(list(range(50)))
    assert 0.5 < logits.std() < 2
    assert not (logits[0] == logits[1]).any()


@pytest.mark.parametrize("options", [{"distinct_layers": 1}, {"is_skewed": True}])
def test_a_dense_model_has_no_options_of_experts(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="is dense"):
        make(tmp_path / "out", geometry("qwen3-8b"), **options)
    with pytest.raises(CheckpointError, match="64 experts; qwen3-8b is dense"):
        geometry("qwen3-8b", num_experts=64)


def test_the_same_options_give_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a", seed=7), make(tmp_path / "b", seed=7)
    assert contents(first.path) == contents(second.path)
    other = contents(make(tmp_path / "c", seed=8).path)
    assert all(other[name] != data for name, data in contents(first.path).items())


def test_layers_that_are_not_distinct_are_links(tmp_path: Path) -> None:
    pack = make(tmp_path / "out", distinct_layers=2)
    inodes = [path.stat().st_ino for path in pack.expert_paths]
    assert len(set(inodes)) == 2
    assert inodes == inodes[:2] + inodes[:2] + inodes[:1]
    assert not list(Verification(pack.path).run(lambda _: None))
    assert pack.expert_paths[0].read_bytes() != pack.expert_paths[1].read_bytes()
    with Synthesis(tmp_path / "other", SynthOptions("tiny", TINY, distinct_layers=2)) as synthesis:
        assert synthesis.nbytes == pack.dense_nbytes + 2 * 9 * pack.experts.block_bytes


class StoppedError(Exception):
    """Stands for a kill in tests that look at what happens next."""


@pytest.mark.parametrize("after_dense", [-10, 1, 12])
def test_a_stopped_run_is_no_pack_and_goes_on_where_it_was(tmp_path: Path, after_dense: int) -> None:
    whole, out = make(tmp_path / "whole", distinct_layers=3), tmp_path / "out"
    num_dense = len(whole.manifest.contents.dense)
    options = SynthOptions("tiny", TINY, distinct_layers=3)
    calls = 0

    def progress(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls == num_dense + after_dense:
            raise StoppedError

    with pytest.raises(StoppedError), Synthesis(out, options) as synthesis:
        synthesis.run(progress)
    assert not out.exists()
    with pytest.raises(PackError):
        Pack.open(tmp_path / "out.partial")
    with Synthesis(out, options) as synthesis:
        done: list[int] = []
        finished = synthesis.finished_bytes
        assert bool(finished) == (after_dense > 0)
        synthesis.run(done.append)
        assert finished + sum(done) == pytest.approx(synthesis.nbytes, abs=64 * num_dense)  # gaps between tensors
    assert contents(out) == contents(whole.path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_work_with_other_options_is_not_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth_module, "write_manifest", lambda *_: (_ for _ in ()).throw(StoppedError))
    with pytest.raises(StoppedError), Synthesis(tmp_path / "out", SynthOptions("tiny", TINY)) as synthesis:
        synthesis.run(lambda _: None)
    for changed in ({"seed": 1}, {"bits": 8}, {"is_skewed": True}, {"distinct_layers": 2}):
        with Synthesis(tmp_path / "out", SynthOptions("tiny", TINY, **changed)) as synthesis:
            assert synthesis.finished_bytes == 0


def test_too_little_room_is_told_before_work_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(CheckpointError, match=r"needs \d+ bytes more; 1000 are free"):
        make(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_disk_without_hard_links_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(source), None, str(target))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(CheckpointError, match=r"layers/001\.experts: Operation not permitted"):
        make(tmp_path / "out", distinct_layers=1)


def test_a_pack_is_replaced_only_when_asked(tmp_path: Path) -> None:
    make(tmp_path / "out")
    with pytest.raises(CheckpointError, match="exists; --force replaces it"):
        make(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"bits": 5}, "5 bits; possible: 16, 8, 4, 3.4, 3, 2"),
        ({"group": 96}, "group 96; must be a positive multiple of 64"),
        ({"distinct_layers": 0}, "0 distinct layers; possible: 1 to 5"),
        ({"distinct_layers": 6}, "6 distinct layers; possible: 1 to 5"),
        ({"seed": -1}, "seed -1; must not be negative"),
    ],
)
def test_impossible_options_are_refused(tmp_path: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        make(tmp_path / "out", **options)


def test_more_layers_than_any_model_has_are_refused_at_once() -> None:
    with pytest.raises(CheckpointError, match="1000000000 layers; at most 1024"):
        geometry("qwen3.5-35b-a3b", num_layers=10**9)


def route_counts(pack: Pack, num_tokens: int, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.int64]:
    """How often each expert of each layer is chosen for random tokens: [L, E]."""
    config, chosen = pack.config, []
    route = kernels.route

    def recorded(logits: NDArray[np.float32], k: int) -> Any:
        indices, weights = route(logits, k)
        chosen.append(np.bincount(indices.ravel(), minlength=config.num_experts))
        return indices, weights

    with running(pack, num_tokens) as engine:
        monkeypatch.setattr(kernels, "route", recorded)
        engine.logits(np.random.default_rng(0).integers(0, config.vocab_size, num_tokens).tolist())
    # Whatever the chunks, every one of them goes through all layers in turn.
    passes = np.array(chosen).reshape(-1, config.num_layers, config.num_experts)
    counts: NDArray[np.int64] = passes.sum(axis=0)
    return counts


def covered(counts: NDArray[np.int64], share: float) -> NDArray[np.float64]:
    """Of each layer's choices, by its hottest experts: [L]."""
    hottest = np.sort(counts, axis=1)[:, ::-1][:, : int(counts.shape[1] * share)]
    part: NDArray[np.float64] = hottest.sum(axis=1) / counts.sum(axis=1)
    return part


SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4)  # 16, 32, 64 and 128 of 512 experts


def test_skewed_routing_covers_what_the_real_model_covers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = route_counts(make(tmp_path / "out", SMALL, is_skewed=True, distinct_layers=2), 1200, monkeypatch)
    wanted = frequencies(SMALL.num_experts, SMALL.top_k)
    for share in SHARES:
        target = wanted[: int(SMALL.num_experts * share)].sum() / SMALL.top_k
        assert abs(covered(counts, share) - target).max() < 0.03
    hottest = [tuple(np.argsort(-layer)[:8]) for layer in counts]
    assert len(set(hottest)) == SMALL.num_layers  # each layer has its own


def test_uniform_routing_prefers_no_expert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = route_counts(make(tmp_path / "out", SMALL, distinct_layers=2), 1200, monkeypatch)
    for share in SHARES:
        assert abs(covered(counts, share) - share).max() < 0.05  # most of it is chance: 150 choices per expert


def test_the_command_makes_a_pack_that_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["synth", str(out), "--geometry", "qwen3.5-35b-a3b", "--layers", "1", "--vocab", "64", "--bits", "2"]
    command += ["--group", "128"]
    assert main([*command, "--experts", "8", "--routing", "skewed"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"wrote {out}: ")
    assert captured.err == ""
    assert main(["verify", str(out)]) == 0
    assert Pack.open(out).name == "qwen3.5-35b-a3b-synthetic"
    assert main([*command, "--experts", "7"]) == 1
    assert capsys.readouterr().err.endswith("top_k is 8; must be at most num_experts 7\n")
    assert main([*command, "--experts", "8"]) == 1
    assert "exists; --force replaces it" in capsys.readouterr().err


def test_the_help_says_how_to_fit_a_small_disk(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["synth", "--help"])
    assert "--distinct-layers 4" in capsys.readouterr().out
