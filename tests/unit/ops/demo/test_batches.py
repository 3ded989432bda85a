"""What a step reads."""

from pathlib import Path

import numpy as np

from ops.demo.batches import Batch, step_batch
from ops.demo.text import load_tokenizer
from ops.demo.tokenizer import TURN_START_ID


def batch(path: Path, step: int = 3, prompt_share: float = 0.1) -> Batch:
    return step_batch(load_tokenizer(path), 5, step, tokens=4096, prompt_share=prompt_share)


def test_a_step_is_decided_by_seed_and_number(tokenizer_dir: Path) -> None:
    first, again, other = batch(tokenizer_dir), batch(tokenizer_dir), batch(tokenizer_dir, step=4)
    assert np.array_equal(first.ids, again.ids)
    assert np.array_equal(first.is_target, again.is_target)
    assert not np.array_equal(first.ids, other.ids)


def test_it_has_the_tokens_asked_for_in_chats_of_rising_length(tokenizer_dir: Path) -> None:
    read = batch(tokenizer_dir)
    assert len(read.ids) == 4096
    assert sum(read.lengths) == len(read.ids) == len(read.is_target)
    assert list(read.lengths) == sorted(read.lengths)
    starts = np.cumsum((0, *read.lengths[:-1]))
    assert (read.ids[starts] == TURN_START_ID).all()


def test_all_but_first_tokens_can_be_targets(tokenizer_dir: Path) -> None:
    read = batch(tokenizer_dir, prompt_share=1.0)
    starts = np.cumsum((0, *read.lengths[:-1]))
    assert not read.is_target[starts].any()
    assert read.is_target.sum() == len(read.ids) - len(starts)


def test_prompts_count_as_often_as_asked(tokenizer_dir: Path) -> None:
    def share(prompt_share: float) -> float:
        return float(batch(tokenizer_dir, prompt_share=prompt_share).is_target.mean())

    assert share(0.0) < share(0.1) < share(0.5)
