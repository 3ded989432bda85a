"""Conversion: what lands in the pack, what is refused, what a stopped run leaves behind."""

import errno
import json
import os
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.checkpoint import encode as encode_module
from edge.checkpoint import rounding as rounding_module
from edge.checkpoint.convert import Conversion, model_name
from edge.checkpoint.layout import Format
from edge.checkpoint.matrix import Matrix, aligned_zeros, dequantize, expert_matrices
from edge.checkpoint.names import Part, dense_tensors
from edge.checkpoint.pack import Pack
from edge.checkpoint.precision import BITS
from edge.checkpoint.random_model import write_random_checkpoint
from edge.checkpoint.source import Checkpoint
from edge.checkpoint.workspace import Workspace
from edge.errors import CheckpointError, PackError
from edge.quant.floats import widen
from tests.unit.edge.checkpoint.samples import TINY, Tensors, change_json, change_tensors, convert, read_tensors

RELATIVE_ERRORS = {
    Format.Q8: 0.01,
    Format.Q4: 0.15,
    Format.Q3: 0.3,
    Format.Q2: 0.7,
}  # of a weight's norm, for normal random weights


def contents(pack: Path) -> dict[str, bytes]:
    return {str(path.relative_to(pack)): path.read_bytes() for path in pack.rglob("*") if path.is_file()}


def assert_close(stored: Matrix | NDArray[np.float32], source: NDArray[np.float32]) -> None:
    limit = RELATIVE_ERRORS.get(stored.layout.format) if isinstance(stored, Matrix) else None
    values = dequantize(stored) if isinstance(stored, Matrix) else stored
    assert values.shape == source.shape
    if limit is None:
        np.testing.assert_array_equal(values, source)
    else:
        assert np.linalg.norm(values - source) <= limit * np.linalg.norm(source)


@pytest.mark.parametrize(
    ("bits", "form"),
    [*((bits, Format.BF16) for bits in BITS), (16, Format.F32), (4, Format.F32), (16, Format.F16), (4, Format.F16)],
)
def test_every_weight_lands_where_it_belongs(tmp_path: Path, bits: float, form: Format) -> None:
    write_random_checkpoint(tmp_path / "source", TINY, tokenizer=False, form=form)
    pack = convert(tmp_path / "source", tmp_path / "out", bits=bits)
    checkpoint, dense = Checkpoint(tmp_path / "source"), pack.load_dense()
    assert list(dense) == [tensor.name for tensor in dense_tensors(TINY)]
    for tensor in dense_tensors(TINY):
        source, stored = checkpoint.dense(tensor), dense[tensor.name]
        assert_close(stored, widen(source.read(0, source.rows), source.form).reshape(tensor.shape))
    block = aligned_zeros(pack.experts.block_bytes, 4096)
    for layer, expert in ((0, 0), (1, 4), (2, 3)):
        pack.read_expert(layer, expert, block)
        for part, matrix in zip(Part, expert_matrices(pack.experts, block), strict=True):
            source = checkpoint.expert(layer, expert, part)
            assert_close(matrix, widen(source.read(0, source.rows), source.form))
    checkpoint.close()


def test_16_bits_keep_each_tensors_own_precision(source: Path) -> None:
    def mix(tensors: Tensors) -> None:
        name = "model.layers.1.self_attn.q_proj.weight"
        tensors[name] = (Format.F32, widen(tensors[name][1], Format.BF16))

    change_tensors(source, mix)
    dense = convert(source, source.parent / "out").load_dense()
    forms = {name: tensor.layout.format for name, tensor in dense.items() if isinstance(tensor, Matrix)}
    assert forms.pop("layers.1.self_attn.q_proj") is Format.F32
    assert set(forms.values()) == {Format.BF16}


def test_routing_and_gating_keep_their_precision_at_4_bits(source: Path) -> None:
    pack = convert(source, source.parent / "out", bits=4, group=128)
    dense = pack.load_dense()
    kept = {n.split(".", 2)[-1] for n, t in dense.items() if isinstance(t, Matrix) and t.layout.format is Format.BF16}
    assert kept == {"mlp.gate", "mlp.shared_expert_gate", "linear_attn.in_proj_a", "linear_attn.in_proj_b"}
    assert {pack.experts.gate.format, pack.experts.up.format, pack.experts.down.format} == {Format.Q4}
    assert (pack.experts.gate.group, pack.manifest.contents.group) == (128, 128)


@pytest.mark.parametrize(
    ("bits", "dense", "gate_up", "down"),
    [
        (8, Format.Q8, Format.Q8, Format.Q8),
        (3.4, Format.Q4, Format.Q3, Format.Q4),
        (3, Format.Q4, Format.Q3, Format.Q3),
        (2, Format.Q4, Format.Q2, Format.Q2),
    ],
)
def test_only_routed_experts_go_below_4_bits(
    source: Path, bits: float, dense: Format, gate_up: Format, down: Format
) -> None:
    contents = convert(source, source.parent / "out", bits=bits, sensitive_bits=4).manifest.contents
    assert contents.sensitive_bits is None
    forms = {entry.layout.format for entry in contents.dense if entry.layout}
    assert forms == {dense, Format.BF16}  # what routes and gates keeps its precision
    experts = contents.experts
    assert experts
    assert (experts.gate.format, experts.up.format, experts.down.format) == (gate_up, gate_up, down)
    assert contents.bits == bits


@pytest.mark.parametrize("bits", [4, 3.4, 3, 2])
@pytest.mark.parametrize("tied", [False, True])
def test_sensitive_matrices_keep_8_bits_below_that(tmp_path: Path, bits: float, tied: bool) -> None:
    write_random_checkpoint(tmp_path / "source", replace(TINY, tie_embeddings=tied), tokenizer=False)
    contents = convert(tmp_path / "source", tmp_path / "out", bits=bits).manifest.contents
    kept = {entry.name for entry in contents.dense if entry.layout and entry.layout.format is Format.Q8}
    attention = {f"layers.1.self_attn.{name}_proj" for name in "qkvo"}
    out = {"layers.0.linear_attn.out_proj", "layers.2.linear_attn.out_proj"}
    assert kept == attention | out | ({"embed_tokens"} if tied else set())
    assert contents.sensitive_bits == 8


def test_the_same_checkpoint_gives_the_same_bytes(source: Path) -> None:
    first, second = convert(source, source.parent / "a", bits=4), convert(source, source.parent / "b", bits=4)
    assert contents(first.path) == contents(second.path)


@pytest.mark.parametrize("bits", [16, 3.4])
def test_the_number_of_threads_changes_no_byte(source: Path, bits: float, monkeypatch: pytest.MonkeyPatch) -> None:
    packs = []
    for threads in (1, 5):
        monkeypatch.setattr(rounding_module, "num_threads", lambda threads=threads: threads)
        packs.append(convert(source, source.parent / f"of-{threads}", bits=bits).path)
    assert contents(packs[0]) == contents(packs[1])


def test_a_matrix_of_many_jobs_is_stored_whole(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = convert(source, source.parent / "whole", bits=4)
    monkeypatch.setattr(encode_module, "BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(encode_module, "JOB_BLOCKS", 1)  # a job per 16 rows
    assert contents(convert(source, source.parent / "out", bits=4).path) == contents(whole.path)


def test_a_pack_says_where_it_came_from(source: Path) -> None:
    pack = convert(source, source.parent / "out")
    assert pack.name == "tiny-model"
    assert pack.config == replace(TINY, eos_token_ids=(511, 509))  # generation_config.json stands above config.json
    assert pack.manifest.source["files"][0]["name"] == "model.safetensors"
    assert pack.tokenizer_dir
    assert (pack.tokenizer_dir / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()


def test_a_model_from_the_hugging_face_cache_has_its_own_name(tmp_path: Path) -> None:
    assert model_name(tmp_path / "models--Qwen--Qwen3.5-35B-A3B" / "snapshots" / "0a1b2c") == "Qwen3.5-35B-A3B"
    assert model_name(tmp_path / "checkpoints" / "mine" / ".") == "mine"


def test_a_checkpoint_without_tokenizer_converts_and_says_so(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "source", TINY, tokenizer=False, form=Format.F32)
    with Conversion(tmp_path / "source", tmp_path / "out") as conversion:
        assert [note.split(":")[0] for note in conversion.notes] == [
            "float32 weights stay float32",
            "the checkpoint has no tokenizer.json",
        ]
        conversion.run(lambda _: None)
    assert Pack.open(tmp_path / "out").tokenizer_dir is None


def test_a_tied_head_is_not_stored_twice(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "source", replace(TINY, tie_embeddings=True), tokenizer=False)
    pack = convert(tmp_path / "source", tmp_path / "out")
    assert pack.config.tie_embeddings
    assert "lm_head" not in pack.load_dense()


def test_a_head_that_is_there_is_used_whatever_the_config_says_of_tying(source: Path) -> None:
    change_json(source / "config.json", lambda config: config.update(tie_word_embeddings=True))
    pack = convert(source, source.parent / "out")
    assert not pack.config.tie_embeddings
    form, head = read_tensors(source / "model.safetensors")["lm_head.weight"]
    stored = pack.load_dense()["lm_head"]
    assert isinstance(stored, Matrix)
    np.testing.assert_array_equal(dequantize(stored), widen(head, form))


def test_progress_adds_up_to_the_source(source: Path) -> None:
    seen: list[int] = []
    with Conversion(source, source.parent / "out") as conversion:
        conversion.run(seen.append)
        assert sum(seen) == conversion.source_bytes


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"bits": 5}, "5 bits; possible: 16, 8, 4, 3.4, 3, 2"),
        ({"bits": 3.5}, "3.5 bits; possible"),
        ({"group": 32}, "group 32; must be a positive multiple of 64"),
        ({"group": 0}, "group 0"),
        ({"sensitive_bits": 3}, "3 sensitive bits; possible: 8, 4"),
    ],
)
def test_impossible_options_are_refused(source: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        Conversion(source, source.parent / "out", **options)


@pytest.mark.parametrize("bits", [16, 4])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["model.layers.1.mlp.experts.down_proj", "model.norm.weight", "lm_head.weight"])
def test_numbers_that_are_none_are_named(tmp_path: Path, bits: int, value: float, name: str) -> None:
    write_random_checkpoint(tmp_path / "source", TINY, form=Format.F32)

    def spoil(tensors: Tensors) -> None:
        tensors[name][1].reshape(-1)[-3] = value

    change_tensors(tmp_path / "source", spoil)
    with pytest.raises(CheckpointError, match=f"model.safetensors: {name} holds NaN or infinite"):
        convert(tmp_path / "source", tmp_path / "out", bits=bits)
    assert not (tmp_path / "out").exists()


def test_numbers_beyond_the_scales_are_named_with_the_remedy(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "source", TINY, form=Format.F32)
    change_tensors(tmp_path / "source", lambda tensors: tensors["lm_head.weight"][1].fill(-1e30))
    with pytest.raises(CheckpointError, match=r"lm_head.weight holds -1.0.*e\+30.*use --bits 16"):
        convert(tmp_path / "source", tmp_path / "out", bits=8)


def test_a_pack_is_replaced_only_when_asked(source: Path) -> None:
    out = source.parent / "out"
    convert(source, out, bits=4)
    with pytest.raises(CheckpointError, match="exists; --force replaces it"):
        convert(source, out)
    assert Pack.open(out).manifest.contents.bits == 4
    assert convert(source, out, force=True).manifest.contents.bits == 16
    assert sorted(path.name for path in source.parent.iterdir()) == ["out", "tiny-model"]


def test_what_is_not_a_pack_is_never_replaced(source: Path) -> None:
    for out in (source, source / "config.json"):
        with pytest.raises(CheckpointError, match="exists and is not a packed model"):
            convert(source, out, force=True)
    assert (source / "config.json").is_file()


def test_a_foreign_directory_with_the_old_packs_name_is_left_alone(source: Path) -> None:
    out, foreign = source.parent / "out", source.parent / "out.replaced" / "thesis.txt"
    foreign.parent.mkdir()
    foreign.write_text("")
    convert(source, out)
    with pytest.raises(CheckpointError, match=r"out\.replaced.*run again"):
        convert(source, out, force=True)
    assert foreign.is_file()
    Pack.open(out)


def test_an_empty_directory_may_become_the_pack(source: Path) -> None:
    (source.parent / "out").mkdir()
    convert(source, source.parent / "out")


def test_a_foreign_directory_in_the_way_is_left_alone(source: Path) -> None:
    partial = source.parent / "out.partial"
    partial.mkdir()
    (partial / "thesis.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"out\.partial is in the way"):
        convert(source, source.parent / "out")
    assert (partial / "thesis.txt").is_file()


def test_two_conversions_of_one_pack_do_not_run_at_once(source: Path) -> None:
    out = source.parent / "out"
    with Conversion(source, out) as first:
        with pytest.raises(CheckpointError, match="another process is writing it"):
            convert(source, out)
        first.run(lambda _: None)
    with pytest.raises(CheckpointError, match="exists"):
        convert(source, out)


def test_too_little_room_is_told_before_work_starts(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(CheckpointError, match=r"needs \d+ bytes more; 1000 are free"):
        convert(source, source.parent / "out")
    assert [path.name for path in source.parent.iterdir()] == ["tiny-model"]


def test_a_full_disk_is_one_line_and_what_was_finished_stays(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = source.parent / "out"
    calls = []

    def sync(file: Any) -> None:
        calls.append(file.name)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)

    monkeypatch.setattr(rounding_module, "sync_file", sync)
    with pytest.raises(CheckpointError, match=r"writing .*out: .*001\.experts: No space left on device; .* run again"):
        convert(source, out)
    with Conversion(source, out) as conversion:
        assert conversion.finished_bytes > 0
        conversion.run(lambda _: None)
    assert not [name for name in calls[3:] if str(name).endswith(("dense.bin", "000.experts"))]
    Pack.open(out).load_dense()


class StoppedError(Exception):
    """Stands for a kill in tests that look at what happens next."""


def stop_after(source: Path, out: Path, num_calls: int, **options: Any) -> None:
    """Convert until progress was reported so many times."""
    calls = 0

    def progress(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls == num_calls:
            raise StoppedError

    with pytest.raises(StoppedError), Conversion(source, out, **options) as conversion:
        conversion.run(progress)


NUM_DENSE = len(dense_tensors(TINY))


@pytest.mark.parametrize("num_calls", [1, NUM_DENSE, NUM_DENSE + 1, NUM_DENSE + 6, NUM_DENSE + 15])
def test_a_stopped_conversion_goes_on_where_it_was(source: Path, num_calls: int) -> None:
    whole = convert(source, source.parent / "whole", bits=4)
    out = source.parent / "out"
    stop_after(source, out, num_calls, bits=4)
    assert not out.exists()
    with pytest.raises(PackError):
        Pack.open(source.parent / "out.partial")
    with Conversion(source, out, bits=4) as conversion:
        done: list[int] = []
        finished = conversion.finished_bytes
        assert bool(finished) == (num_calls > NUM_DENSE)
        conversion.run(done.append)
        assert finished + sum(done) == conversion.source_bytes
    assert contents(out) == contents(whole.path)


def test_work_of_another_source_or_with_other_options_is_not_reused(source: Path) -> None:
    out = source.parent / "out"
    stop_after(source, out, NUM_DENSE + 7, bits=8)
    with Conversion(source, out, bits=4) as conversion:
        assert conversion.finished_bytes == 0
    stop_after(source, out, NUM_DENSE + 7, bits=4)
    change_json(source / "config.json", lambda config: config.update(rms_norm_eps=1e-5))
    with Conversion(source, out, bits=4) as conversion:
        assert conversion.finished_bytes == 0


def test_an_interrupt_while_a_file_is_noted_keeps_it(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, append = source.parent / "out", Workspace._append

    def interrupted(self: Workspace, line: Any) -> None:
        append(self, line)
        if "file" in line:
            raise KeyboardInterrupt

    monkeypatch.setattr(Workspace, "_append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(source, out)
    monkeypatch.undo()
    with Conversion(source, out) as conversion:
        assert conversion.finished_bytes > 0


def test_work_is_not_reused_once_the_source_was_written_again(source: Path) -> None:
    out = source.parent / "out"
    stop_after(source, out, NUM_DENSE + 7, bits=4)
    weights = source / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1  # the same names, shapes and size: a model that was trained on
    weights.write_bytes(data)
    os.utime(weights, ns=(0, weights.stat().st_mtime_ns + 1))
    with Conversion(source, out, bits=4) as conversion:
        assert conversion.finished_bytes == 0


def test_a_source_that_is_written_to_meanwhile_makes_no_pack(source: Path) -> None:
    out, weights = source.parent / "out", source / "model.safetensors"
    with Conversion(source, out) as first:
        os.utime(weights, ns=(0, weights.stat().st_mtime_ns + 1))
        with pytest.raises(CheckpointError, match="written to while it was converted"):
            first.run(lambda _: None)
    assert not out.exists()
    with Conversion(source, out) as second:
        assert second.finished_bytes == 0


def test_a_stopped_run_leaves_no_file_of_a_tokenizer_that_is_gone(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, template = source.parent / "out", source / "chat_template.jinja"
    template.write_text("{{ messages }}")

    def stop(self: Conversion, tokenizer: object) -> None:
        raise StoppedError

    monkeypatch.setattr(Conversion, "_write_manifest", stop)
    with pytest.raises(StoppedError):
        convert(source, out)
    monkeypatch.undo()
    template.unlink()
    assert "chat_template.jinja" not in {path.name for path in convert(source, out).tokenizer_files()}


@pytest.mark.parametrize(
    "tail", [b"", b'{"file": "layers/', b"\xff\xfe\n", b"\n", b"7\n", b'{"file": ["dense.bin"], "note": 1}\n']
)
def test_a_torn_journal_loses_only_its_last_line(source: Path, tail: bytes) -> None:
    out = source.parent / "out"
    stop_after(source, out, NUM_DENSE + 7)
    with (source.parent / "out.partial" / "journal.jsonl").open("ab") as journal:
        journal.write(tail)
    with Conversion(source, out) as conversion:
        assert 0 < conversion.finished_bytes < conversion.source_bytes
        conversion.run(lambda _: None)
    Pack.open(out).load_dense()
    assert not (out / "journal.jsonl").exists()


def test_a_finished_file_that_is_gone_or_cut_is_made_again(source: Path) -> None:
    whole, out = convert(source, source.parent / "whole"), source.parent / "out"
    stop_after(source, out, NUM_DENSE + 13)
    partial = source.parent / "out.partial"
    (partial / "dense.bin").unlink()
    os.truncate(partial / "layers" / "000.experts", 4096)
    convert(source, out)
    assert contents(out) == contents(whole.path)


def test_a_stop_while_the_old_pack_is_moved_away_loses_nothing(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = source.parent / "out"
    convert(source, out, bits=4)
    rename, calls = Path.rename, []

    def stop_at_the_second(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise StoppedError
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stop_at_the_second)
    with pytest.raises(StoppedError):
        convert(source, out, force=True)
    assert not out.exists()
    monkeypatch.undo()
    assert convert(source, out).manifest.contents.bits == 16
    assert sorted(path.name for path in source.parent.iterdir()) == ["out", "tiny-model"]


def test_the_journal_names_each_file_once(source: Path) -> None:
    out = source.parent / "out"
    stop_after(source, out, NUM_DENSE + 15)
    lines = (source.parent / "out.partial" / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines[1:]] == ["dense.bin", "layers/000.experts", "layers/001.experts"]
