"""What a step reads."""

from pathlib import Path

import numpy as np

from ops.demo.batches import MULTIPLE, Batch, step_batches
from ops.demo.text import load_tokenizer
from ops.demo.tokenizer import END_OF_TEXT_ID


def batches(path: Path, step: int = 3, prompt_share: float = 0.1) -> list[Batch]:
    return step_batches(load_tokenizer(path), 5, step, tokens=4096, tokens_at_once=1024, prompt_share=prompt_share)


def test_a_step_is_decided_by_seed_and_number(tokenizer_dir: Path) -> None:
    first, again, other = batches(tokenizer_dir), batches(tokenizer_dir), batches(tokenizer_dir, step=4)
    assert all(
        np.array_equal(a.ids, b.ids) and np.array_equal(a.is_target, b.is_target)
        for a, b in zip(first, again, strict=True)
    )
    assert not any(np.array_equal(a.ids, b.ids) for a, b in zip(first, other, strict=False))


def test_it_has_the_tokens_asked_for_and_little_padding(tokenizer_dir: Path) -> None:
    ids = [batch.ids for batch in batches(tokenizer_dir)]
    tokens = sum(int((part != END_OF_TEXT_ID).sum()) for part in ids)
    assert 4096 <= tokens < 4096 * 2
    assert sum(part.size for part in ids) < tokens * 1.4
    assert all(part.shape[1] % MULTIPLE == 0 for part in ids)
    assert all(part.size <= 1024 or len(part) == 1 for part in ids)


def test_padding_and_first_tokens_are_no_targets(tokenizer_dir: Path) -> None:
    for batch in batches(tokenizer_dir, prompt_share=1.0):
        assert not batch.is_target[batch.ids == END_OF_TEXT_ID].any()
        assert not batch.is_target[:, 0].any()
        assert batch.is_target[:, 1:][batch.ids[:, 1:] != END_OF_TEXT_ID].all()


def test_prompts_count_as_often_as_asked(tokenizer_dir: Path) -> None:
    def share(prompt_share: float) -> float:
        return float(
            np.mean(np.concatenate([b.is_target.ravel() for b in batches(tokenizer_dir, prompt_share=prompt_share)]))
        )

    assert share(0.0) < share(0.1) < share(0.5)
