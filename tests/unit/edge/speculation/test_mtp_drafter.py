"""The MTP layer as a drafter: what it costs prompts, what its faults cost, and that its guesses leave no trace."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.batch import Segment
from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.cli import main
from edge.engine_options import EngineOptions
from edge.engine_parts import EngineParts, open_parts
from edge.errors import PackError, StorageError
from edge.experts.store import ExpertStore
from edge.kernels import ExpertReader
from edge.layers.mtp import MtpLayer
from edge.model import Model
from edge.speculation.drafter import DraftRequest, MtpDrafter
from edge.state import MOST_BEHIND, SequenceState

CONFIG = replace(SMALL, num_mtp_layers=1)
OPTIONS = EngineOptions(2_000_000_000, 64, expert_slots=6, speculate="always")
PROMPT = list(range(3, 30))


@pytest.fixture(scope="module")
def pack_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("model")
    write_random_checkpoint(work / "checkpoint", CONFIG, tokenizer=False)
    assert main(["convert", str(work / "checkpoint"), str(work / "pack"), "--bits", "4"]) == 0
    return work / "pack"


@pytest.fixture
def parts(pack_path: Path) -> Iterator[EngineParts]:
    parts = open_parts(pack_path, OPTIONS)
    yield parts
    parts.close()


@pytest.fixture
def drafter(parts: EngineParts) -> MtpDrafter:
    assert parts.mtp is not None
    return MtpDrafter(CONFIG, parts.model, parts.mtp)


def computed(parts: EngineParts, drafter: MtpDrafter, ids: Sequence[int]) -> SequenceState:
    state = SequenceState(CONFIG, 64)
    batch = parts.model.batch([Segment(ids, state)])
    parts.model.run(batch)
    drafter.follow(batch)
    return state


def recorded(parts: EngineParts) -> list[int]:
    """The layers whose experts are asked for from now on."""
    layers: list[int] = []

    def record(layer: int, *_: object) -> None:
        layers.append(layer)

    assert isinstance(parts.store, ExpertStore)
    parts.store.recorder = record
    return layers


def test_a_prompt_asks_for_no_expert_of_the_layer_and_a_guess_for_those_of_one_token(
    parts: EngineParts, drafter: MtpDrafter
) -> None:
    layers = recorded(parts)
    state = computed(parts, drafter, PROMPT)
    assert layers == [0, 1, 2, 3]
    drafter.draft([DraftRequest(state, 7, 2)])
    assert layers == [0, 1, 2, 3, 4, 4]


def test_guesses_of_many_sequences_are_those_of_each_alone(parts: EngineParts, drafter: MtpDrafter) -> None:
    states = [computed(parts, drafter, PROMPT[:length]) for length in (1, 27, 5, 2)]
    requests = [DraftRequest(state, 40 + number, number) for number, state in enumerate(states)]
    together = drafter.draft(requests)
    assert [len(tokens) for tokens in together] == [0, 1, 2, 3]
    assert together == [drafter.draft([request])[0] for request in requests]


def test_tokens_that_waited_to_be_shown_together_are_seen_as_if_they_had_not(
    parts: EngineParts, drafter: MtpDrafter
) -> None:
    ids = [7 * number % 500 for number in range(MOST_BEHIND + 20)]
    at_once, one_by_one = computed(parts, drafter, ids), SequenceState(CONFIG, 64)
    waiting = []
    for token in ids:
        batch = parts.model.batch([Segment([token], one_by_one)])
        parts.model.run(batch)
        drafter.follow(batch)
        waiting.append(sum(len(each.ids) for each in one_by_one.behind))
    assert max(waiting) == MOST_BEHIND - 1
    assert waiting[-1] == 19
    requests = [DraftRequest(state, 9, 3) for state in (at_once, one_by_one)]
    first, second = drafter.draft(requests)
    assert first == second
    assert not one_by_one.behind
    for ours, theirs in zip(one_by_one.contents(len(ids) - 1), at_once.contents(len(ids) - 1), strict=True):
        for our, their in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(our, their)


def test_a_new_sequence_in_the_same_memory_has_nothing_waiting(parts: EngineParts, drafter: MtpDrafter) -> None:
    state = computed(parts, drafter, PROMPT[:3])
    assert state.behind
    state.reset()
    assert not state.behind


def test_nobody_to_guess_for_is_no_fault(drafter: MtpDrafter) -> None:
    assert drafter.draft([]) == []


class Broken:
    """Reads that fail once `after` others have ended."""

    def __init__(self, patch: pytest.MonkeyPatch, after: int) -> None:
        self.after = after
        original: Callable[[ExpertReader, int], None] = ExpertReader.wait

        def wait(reader: ExpertReader, ticket: int) -> None:
            original(reader, ticket)
            self.after -= 1
            if self.after < 0:
                raise StorageError("injected")

        patch.setattr(ExpertReader, "wait", wait)


@pytest.mark.parametrize("after", [0, 1, 5, 9])
def test_experts_that_cannot_be_read_cost_guesses_and_nothing_else(
    parts: EngineParts, drafter: MtpDrafter, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    states = [computed(parts, drafter, PROMPT[:length]) for length in (20, 9)]
    requests = [DraftRequest(state, 9, 3) for state in states]
    whole = drafter.draft(requests)
    with monkeypatch.context() as patch:
        for layer in range(4):  # the layer's own experts have left the slots
            fetch_all(parts, layer)
        Broken(patch, after)
        broken = drafter.draft(requests)
    assert all(found == expected[: len(found)] for found, expected in zip(broken, whole, strict=True))
    assert sum(map(len, broken)) < 6
    assert drafter.draft(requests) == whole


def fetch_all(parts: EngineParts, layer: int) -> None:
    assert isinstance(parts.store, ExpertStore)
    with parts.store.fetch(layer, list(range(CONFIG.num_experts)), is_scan=False) as batches:
        for _ in batches:
            pass


@pytest.mark.parametrize("part", ["embed", "head"])
def test_an_embedding_or_head_that_cannot_be_read_costs_guesses_and_nothing_else(
    parts: EngineParts, drafter: MtpDrafter, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    state = computed(parts, drafter, PROMPT)

    def fail(*_: object) -> None:
        raise StorageError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(Model, part, fail)
        assert drafter.draft([DraftRequest(state, 9, 2)]) == [[]]
    assert len(drafter.draft([DraftRequest(state, 9, 2)])[0]) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [("mtp.fc", "tensor mtp.fc is missing"), ("mtp.layers.0.mlp.gate", "tensor mtp.layers.0.mlp.gate is missing")],
)
def test_a_tensor_that_is_not_there_is_named(parts: EngineParts, name: str, message: str) -> None:
    tensors = {key: tensor for key, tensor in parts.dense.tensors.items() if key != name}
    source = parts.store if isinstance(parts.store, ExpertStore) else None
    with pytest.raises(PackError, match=message):
        MtpLayer(CONFIG, tensors, source)


def test_a_guess_for_every_place_up_to_the_end_of_the_context(parts: EngineParts, drafter: MtpDrafter) -> None:
    ids = np.arange(60).tolist()
    state = computed(parts, drafter, ids)
    assert len(drafter.draft([DraftRequest(state, 9, 64 - 60 - 1)])[0]) == 3
