"""Reading ahead on guesses changes when experts arrive, and nothing of what is computed."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.checkpoint.random_model import SMALL
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.experts import open_store
from edge.experts.gate import Gate, Gates
from edge.layers import decoder
from edge.sampler import SamplingParams

CONTEXT = 96
IDS = [(7 * i + i * i) % SMALL.vocab_size for i in range(60)]
PARAMS = SamplingParams(max_tokens=12, temperature=0.8, seed=3)


class OpenGate(Gate):
    """Reads every guess, however wrong the like of it was."""

    @property
    def is_worth_guessing(self) -> bool:
        """Always."""
        return True

    def admits(self, place: int) -> bool:
        """Whatever became of others."""
        return True


def answer(pack_path: Path, options: EngineOptions, prompt_tokens: int) -> tuple[list[int], int]:
    """The tokens drawn, and the bytes read on a guess."""
    engine = Engine.load(pack_path, options)
    tokens = list(engine.generate(IDS[:prompt_tokens], PARAMS))
    guessed = engine.stats().prefetch_bytes
    engine.close()
    return tokens, guessed


@settings(max_examples=20, deadline=None)
@given(slots=st.integers(1, 40), chunk=st.integers(1, 60), prompt_tokens=st.integers(1, 60), rows=st.integers(1, 64))
def test_every_token_is_the_one_drawn_without(
    pack_path: Path, slots: int, chunk: int, prompt_tokens: int, rows: int
) -> None:
    plain, none = answer(pack_path, EngineOptions(2_000_000_000, CONTEXT, prefetch=False), prompt_tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_store, "Gates", lambda: Gates(OpenGate(), OpenGate()))
        patch.setattr(decoder, "GUESS_ROWS", rows)  # of a prompt's, on which the guess is made
        options = EngineOptions(2_000_000_000, CONTEXT, expert_slots=slots, chunk_tokens=chunk)
        ahead, _ = answer(pack_path, options, prompt_tokens)
    assert ahead == plain
    assert none == 0


def test_guesses_are_read_where_slots_are_short(pack_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_store, "Gates", lambda: Gates(OpenGate(), OpenGate()))
        _, guessed = answer(pack_path, EngineOptions(2_000_000_000, CONTEXT, expert_slots=24), 60)
    assert guessed > 0
