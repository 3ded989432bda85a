"""Perplexity, KL, agreement and greedy answers against torch and transformers over the very same weights."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from edge.cli import main
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.evaluation.answering import greedy_answers
from edge.evaluation.passages import Passage
from edge.evaluation.scoring import Scorer
from tests.conformance.checkpoints import SHAPES, build, clear_prompt, load, oracle_logits

SHAPE = SHAPES[0]
VOCABULARY = 131
BITS = 3
OPTIONS = EngineOptions(memory_bytes=2_000_000_000, context_tokens=200)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "model"
    build(SHAPE).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def fine(checkpoint: Path) -> Iterator[Engine]:
    yield from opened(checkpoint, 16)


@pytest.fixture(scope="module")
def coarse(checkpoint: Path) -> Iterator[Engine]:
    yield from opened(checkpoint, BITS)


@pytest.fixture(scope="module")
def fine_oracle(checkpoint: Path) -> transformers.PreTrainedModel:
    return load(checkpoint)


@pytest.fixture(scope="module")
def coarse_oracle(checkpoint: Path, coarse: Engine) -> transformers.PreTrainedModel:
    """transformers over the weights that the pack holds."""
    out = checkpoint.with_name("exported")
    assert main(["export", str(coarse.pack.path), str(out)]) == 0
    return load(out)


def opened(checkpoint: Path, bits: float) -> Iterator[Engine]:
    out = checkpoint.with_name(f"pack-{bits:g}")
    assert main(["convert", str(checkpoint), str(out), "--bits", str(bits)]) == 0
    engine = Engine.load(out, OPTIONS)
    yield engine
    engine.close()


def passages(*oracles: transformers.PreTrainedModel) -> list[Passage]:
    """Ids over which no router of any of the models is near a tie: see clear_prompt."""
    found = []
    for length, first in ((40, 1), (90, 30), (150, 149)):
        ids = clear_prompt(oracles[-1], VOCABULARY, length)
        found.append(Passage(tuple(ids), first))
    return found


def test_scores_are_those_of_torch(
    fine: Engine,
    coarse: Engine,
    fine_oracle: transformers.PreTrainedModel,
    coarse_oracle: transformers.PreTrainedModel,
) -> None:
    scorer = Scorer(coarse, fine)
    for passage in passages(fine_oracle, coarse_oracle):
        score = scorer.score(passage)
        q, p = (
            torch.from_numpy(oracle_logits(oracle, passage.ids)[passage.first - 1 : -1]).double().log_softmax(-1)
            for oracle in (coarse_oracle, fine_oracle)
        )
        tokens = torch.tensor(passage.ids[passage.first :])
        assert score.num_tokens == len(tokens)
        nll = torch.nn.functional.nll_loss(q, tokens, reduction="sum").item()
        kl = torch.nn.functional.kl_div(q, p, reduction="sum", log_target=True).item()
        assert score.nll == pytest.approx(nll, rel=1e-3)
        assert score.kl == pytest.approx(kl, rel=2e-2)
        assert score.kl > 0
        assert score.same == int((q.argmax(-1) == p.argmax(-1)).sum())


def test_a_model_is_at_no_distance_from_itself(fine: Engine, fine_oracle: transformers.PreTrainedModel) -> None:
    first, second = Scorer(fine, fine), Scorer(fine, None)
    for passage in passages(fine_oracle):
        score = first.score(passage)
        assert (score.kl, score.same) == (0, score.num_tokens)
        assert second.score(passage).nll == score.nll
    assert first.digest == second.digest


def test_perplexity_is_that_of_the_loss_in_transformers(
    fine: Engine, fine_oracle: transformers.PreTrainedModel
) -> None:
    for passage in passages(fine_oracle):
        ids = torch.tensor([passage.ids])
        labels = ids.clone()
        labels[0, : passage.first] = -100  # what transformers leaves out of its loss
        with torch.no_grad():
            loss = fine_oracle(input_ids=ids, labels=labels).loss.item()
        score = Scorer(fine, None).score(passage)
        assert np.exp(score.nll / score.num_tokens) == pytest.approx(np.exp(loss), rel=1e-3)


def test_greedy_answers_are_those_of_generate(fine: Engine, fine_oracle: transformers.PreTrainedModel) -> None:
    prompts = [clear_prompt(fine_oracle, VOCABULARY, length) for length in (3, 20, 41)]
    answered: list[int] = []
    found = greedy_answers(fine, prompts, 12, (), lambda: answered.append(1))
    assert len(answered) == len(prompts)
    for prompt, answer in zip(prompts, found, strict=True):
        with torch.no_grad():
            said = fine_oracle.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)  # type: ignore[operator]
        assert answer == said[0, len(prompt) :].tolist()


def test_an_end_token_of_the_tokenizer_ends_an_answer(fine: Engine, fine_oracle: transformers.PreTrainedModel) -> None:
    prompts = [clear_prompt(fine_oracle, VOCABULARY, length) for length in (3, 20)]
    whole = greedy_answers(fine, prompts, 8, (), lambda: None)
    end = whole[0][4]
    cut = greedy_answers(fine, prompts, 8, (end,), lambda: None)
    assert cut == [ids[: ids.index(end)] if end in ids else ids for ids in whole]
