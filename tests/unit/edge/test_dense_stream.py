"""Weights that stay on disk: what they give is what weights in RAM give, the disk is never idle, faults pass."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import edge.engine_parts
from edge.checkpoint.contents import DenseEntry, Section
from edge.checkpoint.crc_join import joined_crc
from edge.checkpoint.layout import Format, MatrixLayout
from edge.checkpoint.matrix import Matrix, aligned_zeros, dequantize
from edge.checkpoint.pack import Pack
from edge.checkpoint.random_model import write_random_checkpoint
from edge.config import ModelConfig
from edge.dense_disk import head_blocks, section_crc
from edge.dense_stream import DenseStream, StreamedSection
from edge.disk_rows import DiskRows
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.errors import PackError, StorageError
from edge.kernels import ExpertReader, crc32c
from edge.sampler import SamplingParams
from tests.unit.edge.checkpoint.samples import FAMILIES, TINY, convert

OPTIONS = EngineOptions(memory_bytes=1_000_000_000, context_tokens=64)
IDS = np.random.default_rng(5).integers(0, TINY.vocab_size, 40).tolist()
LAYERS = 7


def tall(config: ModelConfig) -> ModelConfig:
    """The same model with seven layers, and answers that do not end of themselves."""
    types = (config.layer_types * LAYERS)[:LAYERS]
    return replace(config, num_layers=LAYERS, layer_types=types, eos_token_ids=())


@given(first=st.binary(max_size=300), second=st.binary(max_size=300))
def test_the_checksum_of_two_pieces_follows_from_theirs(first: bytes, second: bytes) -> None:
    assert joined_crc(crc32c(first), crc32c(second), len(second)) == crc32c(first + second)


class FakeDisk:
    """Notes what is read; a read ends when it is waited for."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.broken: set[int] = set()
        self.cancelled: list[int] = []
        self.running: dict[int, tuple[int, NDArray[np.uint8]]] = {}
        self.has_begun = False  # whether reads can still be cancelled

    def read(self, file: int, offset: int, out: NDArray[np.uint8], crc: int | None, *, is_prefetch: bool) -> int:
        assert not any(np.shares_memory(out, other) for _, other in self.running.values())
        self.begun.append(offset // 4096)
        self.running[len(self.begun)] = (offset // 4096, out)
        return len(self.begun)

    def wait(self, ticket: int) -> None:
        layer, out = self.running.pop(ticket)
        if layer in self.broken:
            raise StorageError(f"layer {layer} cannot be read")
        out.fill(layer)

    def promote(self, ticket: int) -> None:
        assert ticket in self.running

    def cancel(self, ticket: int) -> bool:
        if self.has_begun:
            return False
        self.cancelled.append(self.running.pop(ticket)[0])
        return True


def stream_of(disk: FakeDisk, num_layers: int = 5, num_slots: int = 3) -> DenseStream:
    layout = MatrixLayout(Format.F32, 2, 16)
    sections = {
        layer: StreamedSection(
            Section(layer * 4096, 4096, (DenseEntry(f"m{layer}", (2, 16), layout, layer * 4096),)), 0
        )
        for layer in range(num_layers)
    }
    return DenseStream(sections, num_slots, disk)


def held(stream: DenseStream, layer: int) -> int:
    """What the slot of a layer holds."""
    with stream.hold(layer) as slot:
        data = stream.matrices(layer, slot)[f"m{layer}"].data
        assert len(set(data.tolist())) == 1
        return int(data[0])


def test_layers_are_read_ahead_into_the_next_pass() -> None:
    disk = FakeDisk()
    stream = stream_of(disk)
    with stream.hold(0):
        assert disk.begun == [0, 1, 2]
    assert disk.begun == [0, 1, 2, 3]  # as soon as a slot is free
    assert [held(stream, layer) for layer in (1, 2, 3, 4, 0, 1)] == [1, 2, 3, 4, 0, 1]
    assert disk.begun == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]  # each once per pass, in order
    stream.close()
    assert not disk.running


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_pass_that_ended_early_costs_what_was_read_ahead(has_begun: bool) -> None:
    disk = FakeDisk()
    disk.has_begun = has_begun
    stream = stream_of(disk)
    assert [held(stream, layer) for layer in (0, 1)] == [0, 1]
    assert [held(stream, layer) for layer in (0, 1, 2, 3, 4)] == [0, 1, 2, 3, 4]
    assert disk.cancelled == ([] if has_begun else [2, 3, 4])


def test_a_failed_read_is_told_and_tried_again() -> None:
    disk = FakeDisk()
    stream = stream_of(disk)
    disk.broken = {1, 2}
    assert held(stream, 0) == 0
    with pytest.raises(StorageError, match="layer 1"):
        held(stream, 1)
    assert held(stream, 0) == 0  # the next pass
    with pytest.raises(StorageError, match="layer 1"):
        held(stream, 1)
    disk.broken = set()
    assert [held(stream, layer) for layer in (0, 1, 2, 3, 4, 0)] == [0, 1, 2, 3, 4, 0]


def test_a_section_has_the_checksum_of_its_bytes(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "source", TINY)
    pack = convert(tmp_path / "source", tmp_path / "pack", bits=4)
    contents, data = pack.manifest.contents, pack.dense_path.read_bytes()
    crcs = dict(zip((entry.name for entry in contents.dense), pack.manifest.dense_crcs, strict=True))
    for section in contents.sections.values():
        assert section_crc(section, crcs) == crc32c(data[section.offset : section.offset + section.nbytes])


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_rows_from_disk_are_those_of_the_matrix(tmp_path: Path, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.disk_rows.BUFFER_BYTES", 3 * 8192)  # fewer tiles at once than are asked for
    write_random_checkpoint(tmp_path / "source", replace(TINY, vocab_size=517))
    pack = convert(tmp_path / "source", tmp_path / "pack", bits=bits)
    matrix = pack.load_dense()["embed_tokens"]
    assert not isinstance(matrix, np.ndarray)
    with ExpertReader([pack.dense_path]) as reader:
        rows = DiskRows(pack.dense_path, pack.manifest.contents.dense[0], pack.manifest.dense_crcs[0], reader)
        wanted = [516, 0, 15, 16, 0, 200, 512, 300, 77]
        np.testing.assert_array_equal(rows.read(wanted), dequantize(matrix)[wanted])


def flip(path: Path, offset: int) -> None:
    """Change a byte."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_altered_rows_are_refused_when_they_are_opened_and_when_they_are_read(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "source", TINY)
    pack = convert(tmp_path / "source", tmp_path / "pack", bits=4)
    entry, crc = pack.manifest.contents.dense[0], pack.manifest.dense_crcs[0]
    with ExpertReader([pack.dense_path]) as reader:
        rows = DiskRows(pack.dense_path, entry, crc, reader)
        flip(pack.dense_path, entry.offset + 5)
        with pytest.raises(StorageError, match="checksum"):
            rows.read([0, 69])
        with pytest.raises(PackError, match="embed_tokens is altered"):
            DiskRows(pack.dense_path, entry, crc, reader)
        flip(pack.dense_path, entry.offset + 5)
        assert rows.read([0, 69]).shape == (2, TINY.hidden_size)


@pytest.mark.parametrize("bits", [16, 4])
def test_a_head_is_cut_into_blocks_that_are_its_rows(tmp_path: Path, bits: int) -> None:
    write_random_checkpoint(tmp_path / "source", replace(TINY, vocab_size=517), tokenizer=False)
    pack = convert(tmp_path / "source", tmp_path / "pack", bits=bits)
    entry, crc = pack.manifest.contents.dense[-1], pack.manifest.dense_crcs[-1]
    most = pack.manifest.contents.sections["lm_head"].nbytes // 3 + 2 * 4096
    head, data = pack.load_dense()["lm_head"], pack.dense_path.read_bytes()
    assert not isinstance(head, np.ndarray)
    blocks = list(head_blocks(pack, entry, crc, most))
    assert len(blocks) == 3
    values = []
    for block in blocks:
        section, (part,) = block.section, block.section.entries
        pages = aligned_zeros(section.nbytes)
        pages[:] = np.frombuffer(data[section.offset : section.offset + section.nbytes], np.uint8)
        assert crc32c(pages) == block.crc
        assert section.nbytes <= most
        assert part.layout
        start = part.offset - section.offset
        values.append(dequantize(Matrix(part.layout, pages[start : start + part.nbytes])))
    np.testing.assert_array_equal(np.concatenate(values), dequantize(head))
    with pytest.raises(PackError, match="lm_head is altered"):
        list(head_blocks(pack, entry, crc ^ 1, most))


@pytest.fixture(params=[*FAMILIES, replace(TINY, tie_embeddings=True)], ids=lambda config: config.family)
def pack(request: pytest.FixtureRequest, tmp_path: Path) -> Pack:
    write_random_checkpoint(tmp_path / "source", tall(request.param), tokenizer=False)
    return convert(tmp_path / "source", tmp_path / "pack", bits=4)


@pytest.fixture
def engines(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Engine, Engine]]:
    """With all weights in RAM, and with most of them on disk."""
    resident = Engine.load(pack.path, OPTIONS)
    assert not resident.plan.streamed_layers
    plan = replace(
        resident.plan, streamed_layers=(0, 2, 3, 5, 6), ring_slots=2, head_streams=True, embedding_on_disk=True
    )
    monkeypatch.setattr(edge.engine_parts, "planned", lambda *_: plan)
    streaming = Engine.load(pack.path, OPTIONS)
    yield resident, streaming
    resident.close()
    streaming.close()


def test_streaming_changes_no_bit(engines: tuple[Engine, Engine]) -> None:
    resident, streaming = engines
    expected = resident.logits(IDS)
    for chunk, prompt_tokens in ((40, 40), (16, 33), (7, 0)):
        assert streaming.logits(IDS, chunk, prompt_tokens).tobytes() == expected.tobytes()
    sampling = SamplingParams(max_tokens=9)
    assert list(streaming.generate(IDS, sampling)) == list(resident.generate(IDS, sampling))
    assert streaming.stats().dense_read_bytes > 0 == resident.stats().dense_read_bytes


def test_each_layer_is_read_once_per_pass(engines: tuple[Engine, Engine]) -> None:
    _, streaming = engines
    sections = streaming.pack.manifest.contents.sections
    layers = [sections[f"layers.{layer}"].nbytes for layer in streaming.plan.streamed_layers]
    head = sections["embed_tokens" if streaming.config.tie_embeddings else "lm_head"].nbytes
    layers.append(head)  # here a single part
    rows = 5 * 2 * 4096  # at most: five tiles of ids, each on a page or two
    before = streaming.stats().dense_read_bytes
    for _ in range(10):
        streaming.logits(IDS)
    read = streaming.stats().dense_read_bytes - before
    ahead = streaming.plan.ring_slots * max(layers)  # may have been counted before, or not yet
    assert 10 * sum(layers) - ahead < read <= 10 * (sum(layers) + rows) + ahead


def test_a_layer_that_cannot_be_read_ends_the_request_alone(engines: tuple[Engine, Engine]) -> None:
    resident, streaming = engines
    expected = list(resident.generate(IDS, SamplingParams(max_tokens=5)))
    broken = streaming.pack.manifest.contents.sections["layers.5"].offset
    running = streaming.generate(IDS, SamplingParams(max_tokens=5))
    assert next(running) == expected[0]
    flip(streaming.pack.dense_path, broken)
    with pytest.raises(StorageError, match=r"dense\.bin.*checksum"):
        list(running)  # perhaps not at once: the layer had been read ahead
    with pytest.raises(StorageError):
        streaming.logits(IDS)
    flip(streaming.pack.dense_path, broken)
    assert list(streaming.generate(IDS, SamplingParams(max_tokens=5))) == expected


def test_a_head_that_cannot_be_read_ends_the_request_alone(engines: tuple[Engine, Engine]) -> None:
    resident, streaming = engines
    sections = streaming.pack.manifest.contents.sections
    is_tied = streaming.config.tie_embeddings
    broken = sections["embed_tokens" if is_tied else "lm_head"].offset
    expected = list(resident.generate(IDS, SamplingParams(max_tokens=5)))
    list(streaming.generate(IDS, SamplingParams(max_tokens=3)))
    flip(streaming.pack.dense_path, broken)
    with pytest.raises(StorageError, match=r"dense\.bin.*checksum"):
        list(streaming.generate(IDS, SamplingParams(max_tokens=9)))
    flip(streaming.pack.dense_path, broken)
    assert list(streaming.generate(IDS, SamplingParams(max_tokens=5))) == expected
