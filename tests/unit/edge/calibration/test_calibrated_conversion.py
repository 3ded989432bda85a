"""Calibrated conversion: what lands in the pack, what it says of itself, what a stopped run leaves behind."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.batch import Batch, Segment
from edge.calibration import experts as experts_module
from edge.calibration import gathering as gathering_module
from edge.calibration import layer_weights as layer_weights_module
from edge.calibration.corpus import read_corpus
from edge.checkpoint.convert import Conversion
from edge.checkpoint.matrix import Matrix, aligned_zeros
from edge.checkpoint.pack import Pack
from edge.checkpoint.random_model import write_random_checkpoint
from edge.checkpoint.verify import Verification
from edge.config import ModelConfig
from edge.errors import CalibrationError, CheckpointError
from edge.layers.moe import Batch as Experts
from edge.layers.mtp import MtpLayer
from edge.model import Model
from edge.state import SequenceState
from tests.unit.edge.calibration.conftest import READER
from tests.unit.edge.checkpoint.samples import FAMILIES, Tensors, change_tensors, convert


def contents(pack: Path) -> dict[str, bytes]:
    return {str(path.relative_to(pack)): path.read_bytes() for path in pack.rglob("*") if path.is_file()}


def calibrate(source: Path, out: Path, chats: Path, **options: Any) -> tuple[Pack, list[dict[str, Any]]]:
    with Conversion(source, out, calibration=chats, **({"bits": 3} | options)) as conversion:
        conversion.run(lambda _: None)
        report = conversion.report
    return Pack.open(out), report


@pytest.mark.parametrize("config", [*FAMILIES, READER], ids=lambda config: f"{config.family}-{config.num_mtp_layers}")
def test_every_family_is_calibrated_whole(tmp_path: Path, chats: Path, config: ModelConfig) -> None:
    source = tmp_path / "family"
    write_random_checkpoint(source, replace(config, vocab_size=512))
    pack, report = calibrate(source, tmp_path / "out", chats)
    dense = pack.load_dense()
    quantized = {n for n, t in dense.items() if isinstance(t, Matrix) and t.layout.format.is_quantized}
    layers = [f"layers.{layer}" for layer in range(3)] + ["mtp.layers.0"] * config.num_mtp_layers
    experts = {f"{layer}.mlp.experts.{part}_proj" for layer in layers for part in ("gate", "up", "down")}
    named = {line["tensor"] for line in report}
    assert named == quantized - {"embed_tokens"} | (experts if config.num_experts else set())
    nearest = convert(source, tmp_path / "nearest", bits=3)
    assert nearest.manifest.contents == pack.manifest.contents
    assert nearest.manifest.dense_crcs != pack.manifest.dense_crcs


def test_a_pack_says_what_it_was_calibrated_with(source: Path, tmp_path: Path, chats: Path) -> None:
    pack, _ = calibrate(source, tmp_path / "out", chats)
    corpus = read_corpus(chats, source, READER.vocab_size)
    stated = pack.manifest.calibration
    assert stated is not None
    assert (stated.sha256, stated.tokens) == (corpus.sha256, corpus.num_tokens)
    assert convert(source, tmp_path / "nearest", bits=3).manifest.calibration is None
    assert not list(Verification(pack.path).run(lambda _: None))
    assert b"As you like it" not in b"".join(contents(pack.path).values())


def test_outputs_change_less_than_rounding_to_nearest_changes_weights(
    source: Path, tmp_path: Path, chats: Path
) -> None:
    _, report = calibrate(source, tmp_path / "out", chats)
    for line in report:
        assert 0 < line["output_error"] < 1
        if line["format"] in ("Q3", "Q4"):
            assert line["output_error"] < line["weight_error"], line


def test_the_streams_are_those_of_the_engine(source: Path, tmp_path: Path, chats: Path) -> None:
    """The unquantised one is what a pack of 16 bits computes, the other what the calibrated pack does."""
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    stop_after(source, out, chats, NUM_LAYER_REPORTS + 1)
    corpus = read_corpus(chats, source, READER.vocab_size)
    shape = (corpus.num_tokens, READER.hidden_size)
    wanted, given = (np.fromfile(partial / "calibration" / f"3.{kind}", np.float32).reshape(shape) for kind in KINDS)
    pack, _ = calibrate(source, out, chats)
    exact = hidden_states(convert(source, tmp_path / "exact"), corpus.sequences)
    np.testing.assert_allclose(wanted, exact, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(given, hidden_states(pack, corpus.sequences), rtol=1e-3, atol=3e-3)
    assert np.abs(given - wanted).max() > 1e-2


def test_the_mtp_layer_is_given_what_the_engine_gives_it(source: Path, tmp_path: Path, chats: Path) -> None:
    partial = tmp_path / "out.partial"
    stop_after(source, tmp_path / "out", chats, NUM_LAYER_REPORTS + 2 + READER.num_experts)
    found = np.fromfile(partial / "calibration" / "mtp.wanted", np.float32).reshape(-1, READER.hidden_size)
    pack = convert(source, tmp_path / "exact")
    dense, experts = pack.load_dense(), PackedExperts(pack)
    model, layer = Model(pack.config, dense, experts), MtpLayer(pack.config, dense, experts)
    expected = []
    for ids in read_corpus(chats, source, READER.vocab_size).sequences:
        state = SequenceState(pack.config, len(ids))
        hidden = model.normalise(model.forward([Segment(ids, state)]))
        segment = Segment(ids[1:], SequenceState(pack.config, len(ids)))
        batch = Batch(pack.config, [segment], layer.join(model.embed(ids[1:]), hidden[:-1]))
        layer.forward(batch)
        expected.append(batch.x)
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-4, atol=1e-4)


def test_the_number_of_threads_changes_no_byte(
    source: Path, tmp_path: Path, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs = []
    for threads in (1, 5):
        for module in (experts_module, gathering_module, layer_weights_module):
            monkeypatch.setattr(module, "num_threads", lambda threads=threads: threads)
        packs.append(calibrate(source, tmp_path / f"of-{threads}", chats)[0].path)
    assert contents(packs[0]) == contents(packs[1])


def test_an_expert_without_any_token_is_packed_all_the_same(source: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("a")
    pack, report = calibrate(source, tmp_path / "out", tmp_path / "short.txt")
    assert min(line["fewest_tokens"] for line in report if "experts" in line) == 0
    pack.load_dense()


@pytest.mark.parametrize("name", ["model.layers.1.mlp.experts.down_proj", "model.norm.weight", "lm_head.weight"])
def test_numbers_that_are_none_are_named(tmp_path: Path, chats: Path, name: str) -> None:
    write_random_checkpoint(tmp_path / "source", READER)

    def spoil(tensors: Tensors) -> None:
        tensors[name][1].reshape(-1)[-3] = 0x7FC0  # NaN in bf16

    change_tensors(tmp_path / "source", spoil)
    with pytest.raises(CheckpointError, match=f"model.safetensors: {name} holds NaN or infinite"):
        calibrate(tmp_path / "source", tmp_path / "out", chats)
    assert not (tmp_path / "out").exists()


def test_a_model_whose_numbers_overflow_is_refused(source: Path, tmp_path: Path, chats: Path) -> None:
    largest = 0x7F7F  # in bf16
    change_tensors(source, lambda tensors: tensors["model.layers.1.input_layernorm.weight"][1].fill(largest))
    with pytest.raises(CalibrationError, match="infinite or none"):
        calibrate(source, tmp_path / "out", chats)


def test_16_bits_have_nothing_to_calibrate(source: Path, tmp_path: Path, chats: Path) -> None:
    with pytest.raises(CalibrationError, match="16 bits lose nothing"):
        calibrate(source, tmp_path / "out", chats, bits=16)


@pytest.mark.parametrize("num_calls", [1, 2, 3, 7, 8, 14, 20, 24])
def test_a_stopped_conversion_goes_on_where_it_was(source: Path, tmp_path: Path, chats: Path, num_calls: int) -> None:
    whole, report = calibrate(source, tmp_path / "whole", chats)
    out = tmp_path / "out"
    stop_after(source, out, chats, num_calls)
    with Conversion(source, out, bits=3, calibration=chats) as conversion:
        done: list[int] = []
        finished = conversion.finished_bytes
        assert bool(finished) == (num_calls > 1)
        conversion.run(done.append)
        assert finished + sum(done) == conversion.source_bytes
        assert conversion.report == report
    assert contents(out) == contents(whole.path)


KILLED = """
import os, signal, sys
from pathlib import Path
from edge.checkpoint.convert import Conversion

source, out, text = map(Path, sys.argv[1:4])
left = [int(sys.argv[4])]

def progress(nbytes):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

with Conversion(source, out, bits=3, calibration=text) as conversion:
    conversion.run(progress)
"""


def test_a_killed_process_leaves_what_the_next_one_goes_on_with(source: Path, tmp_path: Path, chats: Path) -> None:
    whole, _ = calibrate(source, tmp_path / "whole", chats)
    out = tmp_path / "out"
    for num_calls in (9, 4, 8):  # in the second layer, in the second again, and in the third
        arguments = [str(source), str(out), str(chats), str(num_calls)]
        run = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, check=False)
        assert (run.returncode, run.stderr) == (-signal.SIGKILL, b"")
        assert not out.exists()
    with Conversion(source, out, bits=3, calibration=chats) as conversion:
        assert conversion.finished_bytes > conversion.source_bytes / 3
        conversion.run(lambda _: None)
    assert contents(out) == contents(whole.path)


@pytest.mark.parametrize("damage", ["streams", "dense", "experts"])
def test_what_was_damaged_meanwhile_is_made_again(source: Path, tmp_path: Path, chats: Path, damage: str) -> None:
    whole, _ = calibrate(source, tmp_path / "whole", chats)
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    stop_after(source, out, chats, 15)
    if damage == "streams":
        (kept,) = partial.glob("calibration/2.given")
        kept.write_bytes(kept.read_bytes()[:-4] + bytes(4))
    elif damage == "dense":
        (partial / "dense.bin").unlink()
    else:
        (partial / "layers" / "000.experts").unlink()
    calibrate(source, out, chats)
    assert contents(out) == contents(whole.path)


@pytest.mark.parametrize("change", ["text", "tokens", "sensitive", "none"])
def test_work_with_another_text_or_other_options_is_not_reused(
    source: Path, tmp_path: Path, chats: Path, change: str
) -> None:
    stop_after(source, tmp_path / "out", chats, 15)
    options: dict[str, Any] = {"calibration": chats}
    if change == "text":
        chats.write_text(chats.read_text().replace("Hello", "Hallo"))
    elif change == "none":
        options = {}
    else:
        options |= {"tokens": {"calibration_tokens": 100}, "sensitive": {"sensitive_bits": 4}}[change]
    with Conversion(source, tmp_path / "out", bits=3, **options) as conversion:
        assert conversion.finished_bytes == 0


class StoppedError(Exception):
    """Stands for a kill."""


KINDS = ("wanted", "given")
# Reports of progress: embedding, layers, head, MTP layer; each expert of the layers and of the MTP layer.
NUM_LAYER_REPORTS = 1 + READER.num_layers * (1 + READER.num_experts)


def stop_after(source: Path, out: Path, chats: Path, num_calls: int) -> None:
    """Calibrate until progress was reported so many times."""
    calls = 0

    def progress(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls == num_calls:
            raise StoppedError

    with pytest.raises(StoppedError), Conversion(source, out, bits=3, calibration=chats) as conversion:
        conversion.run(progress)


def hidden_states(pack: Pack, sequences: Any) -> NDArray[np.float32]:
    """What the engine has behind its last layer, for each sequence by itself."""
    model = Model(pack.config, pack.load_dense(), PackedExperts(pack))
    states = [SequenceState(pack.config, len(ids)) for ids in sequences]
    return np.concatenate([model.forward([Segment(ids, state)]) for ids, state in zip(sequences, states, strict=True)])


class PackedExperts:
    """Reads each expert when it is asked for."""

    def __init__(self, pack: Pack) -> None:
        self._pack = pack
        self.layout = pack.experts

    @contextmanager
    def fetch(
        self, layer: int, experts: Sequence[int], *, is_scan: bool, spared: Any = ()
    ) -> Iterator[Iterator[Experts]]:
        yield ([(expert, self._read(layer, expert))] for expert in experts)

    def holds(self, layer: int, expert: int) -> bool:
        return True

    def _read(self, layer: int, expert: int) -> NDArray[np.uint8]:
        block = aligned_zeros(self.layout.block_bytes, 4096)
        self._pack.read_expert(layer, expert, block)
        return block
