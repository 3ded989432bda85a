"""The demo model in training against transformers, and its checkpoint against transformers and the engine."""

import json
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3_5MoeTextConfig
from transformers.models.qwen3_5_moe import modeling_qwen3_5_moe as modeling

from edge.checkpoint.source import Checkpoint
from edge.tokenizer import Tokenizer
from ops.demo.batches import step_batch
from ops.demo.examination import transformers_answerer
from ops.demo.export import checkpoint_tensors, export_checkpoint
from ops.demo.network.chats import Chats
from ops.demo.network.delta_rule import CHUNK, delta_rule, unit
from ops.demo.network.experts import balance_loss, grouped_experts
from ops.demo.network.inverse import unit_lower_inverse
from ops.demo.network.model import DemoModel
from ops.demo.network.native import ENVIRONMENT
from ops.demo.network.recurrence import Heads, convolve, recurrence
from ops.demo.optimizer import Optimizer, is_matrix, orthogonal
from ops.demo.recipe import Recipe
from ops.demo.shape import MAX_BYTES, demo_config
from ops.demo.state import FILE, load_state
from ops.demo.tasks import mixture
from ops.demo.text import load_tokenizer
from ops.demo.tokenizer import train_tokenizer
from ops.demo.training import Losses, Training, batch_loss

TINY = Recipe(tokens=2400, tokens_per_step=300, warm_up_steps=2, mtp_from=0.5)


def small_config() -> Qwen3_5MoeTextConfig:
    return demo_config(
        hidden_size=48,
        num_hidden_layers=4,
        num_experts=10,
        num_experts_per_tok=3,
        linear_num_key_heads=2,
        linear_num_value_heads=6,
    )


@pytest.fixture(scope="module")
def model() -> DemoModel:
    """Every parameter away from where training begins, so that each one counts."""
    model = DemoModel(small_config(), seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.3 if parameter.ndim == 1 or "embed" in name else 1.5 * parameter.shape[-1] ** -0.5
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    chats = islice(mixture("test"), 2000)
    train_tokenizer((text for chat in chats for turn in chat.turns for text in (turn.question, turn.answer)), path)
    return path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tokenizer_dir: Path, tmp_path: Path) -> Path:
    """A training's folder whose model is small."""
    monkeypatch.setattr("ops.demo.training.demo_config", small_config)
    for file in tokenizer_dir.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def some_ids(batch: int, length: int) -> torch.Tensor:
    return torch.randint(0, 2048, (batch, length), generator=torch.Generator().manual_seed(1))


LENGTHS = (3, 2 * CHUNK, 2 * CHUNK + 7, 5 * CHUNK)
NATIVE = pytest.mark.parametrize("native", [True, False], ids=["native", "torch"])


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    """With the compiled recurrences and without."""
    monkeypatch.setenv(ENVIRONMENT, "1" if native else "0")
    monkeypatch.setattr("ops.demo.network.chats.TOKENS_AT_ONCE", 8 * CHUNK)  # several rectangles


def hidden_of_transformers(model: DemoModel, ids: torch.Tensor) -> torch.Tensor:
    """Each chat for itself."""
    parts = torch.split_with_sizes(ids, LENGTHS)
    return torch.cat([model.causal.model(part[None], use_cache=False).last_hidden_state[0] for part in parts])


@NATIVE
def test_logits_are_those_of_transformers(model: DemoModel, ways: None) -> None:
    ids = some_ids(1, sum(LENGTHS))[0]
    with torch.no_grad():
        expected = model.causal.lm_head(hidden_of_transformers(model, ids))
        logits = model.head(model.trunk(ids, Chats.of(LENGTHS)).hidden)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)


@NATIVE
def test_gradients_are_those_of_transformers(model: DemoModel, ways: None) -> None:
    ids = some_ids(1, sum(LENGTHS))[0]
    weight = torch.randn(sum(LENGTHS), 48, generator=torch.Generator().manual_seed(2))
    names = [name for name, _ in model.causal.model.named_parameters()]
    parameters = list(model.causal.model.parameters())
    ours = torch.autograd.grad((model.trunk(ids, Chats.of(LENGTHS)).hidden * weight).sum(), parameters)
    theirs = torch.autograd.grad((hidden_of_transformers(model, ids) * weight).sum(), parameters)
    for name, our, their in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-3, atol=1e-3 * float(their.abs().max()), msg=name)


@NATIVE
def test_what_follows_a_token_never_changes_it_nor_does_another_chat(model: DemoModel, ways: None) -> None:
    ids = some_ids(1, sum(LENGTHS))[0]
    other = ids.clone()
    other[:3] = 7
    other[3 + 20 :] = 7
    with torch.no_grad():
        chats = Chats.of(LENGTHS)
        torch.testing.assert_close(
            model.trunk(ids, chats).hidden[3 : 3 + 20], model.trunk(other, chats).hidden[3 : 3 + 20],
            rtol=1e-4, atol=1e-5,
        )  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_changes_no_bit_of_a_recurrence(threads: int) -> None:
    heads, chats = Heads(2, 4, 20, 12), Chats.of(LENGTHS)
    generator = torch.Generator().manual_seed(6)
    mixed = torch.randn(sum(LENGTHS), sum(heads.widths), generator=generator, requires_grad=True)
    gates = torch.rand(2, sum(LENGTHS), 4, generator=generator)
    taps = torch.randn(sum(heads.widths), 4, generator=generator)

    def gradient() -> torch.Tensor:
        out = recurrence(convolve(mixed, taps, chats), -gates[0], gates[1], heads, chats)
        return torch.autograd.grad(out.square().sum(), mixed)[0]

    expected = gradient()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(gradient(), expected)
    finally:
        torch.set_num_threads(before)


def test_the_inverse_and_its_gradient_are_those_of_torch() -> None:
    lower = (
        torch.randn(5, 13, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        .tril(-1)
        .requires_grad_()
    )
    weight = torch.randn(5, 13, 13, dtype=torch.float64)
    expected = torch.linalg.inv(torch.eye(13, dtype=torch.float64) + lower)
    torch.testing.assert_close(unit_lower_inverse(lower), expected)
    (ours,) = torch.autograd.grad((unit_lower_inverse(lower) * weight).sum(), lower)
    (theirs,) = torch.autograd.grad((expected * weight).sum(), lower)
    torch.testing.assert_close(ours, theirs.tril(-1))


def test_the_delta_rule_is_the_recurrence_of_transformers() -> None:
    generator = torch.Generator().manual_seed(4)
    query, key = (unit(torch.randn(2, 3, 5 * CHUNK, 20, generator=generator)) for _ in range(2))
    value = torch.randn(2, 3, 5 * CHUNK, 12, generator=generator)
    decay = -torch.rand(2, 3, 5 * CHUNK, generator=generator)
    beta = torch.rand(2, 3, 5 * CHUNK, generator=generator)
    turned = (x.transpose(1, 2) for x in (query, key, value, decay, beta))
    expected, _ = modeling.torch_recurrent_gated_delta_rule(*turned)
    torch.testing.assert_close(
        delta_rule(query * 20**-0.5, key, value, decay, beta), expected.transpose(1, 2), rtol=1e-4, atol=1e-5
    )


def test_an_expert_that_nobody_chose_costs_nothing_and_changes_nothing() -> None:
    x, gate_up, down = torch.randn(4, 8), torch.randn(5, 8, 8), torch.randn(5, 8, 4)
    chosen, weights = torch.tensor([[2, 0], [2, 1], [2, 0], [2, 1]]), torch.rand(4, 2)
    expected = torch.zeros(4, 8)
    for token in range(4):
        for expert, weight in zip(chosen[token], weights[token], strict=True):
            gate, up = (gate_up[expert] @ x[token]).chunk(2)
            expected[token] += weight * (down[expert] @ (torch.nn.functional.silu(gate) * up))
    torch.testing.assert_close(grouped_experts(x, chosen, weights, gate_up, down), expected)


def test_compiled_code_leaves_small_numbers_as_they_are() -> None:
    convolve(torch.ones(3, 4), torch.ones(4, 4), Chats.of((3,)))
    assert np.float32(1e-30) * np.float32(1e-10) > 0


def test_balance_is_one_where_all_experts_are_used_alike() -> None:
    even = torch.full((6, 3), 1 / 3)
    assert balance_loss(even, torch.tensor([[0], [1], [2]] * 2)).item() == pytest.approx(1)
    assert balance_loss(torch.eye(3)[[0] * 6], torch.zeros(6, 1, dtype=torch.long)).item() == pytest.approx(3)


def test_orthogonalised_matrices_keep_their_directions_with_lengths_near_one() -> None:
    matrices = torch.randn(3, 2, 16, 40, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert values.min() > 0.6
    assert values.max() < 1.3
    torch.testing.assert_close(orthogonal(matrices.mT), orthogonal(matrices).mT, rtol=0.1, atol=0.05)


def test_muon_takes_the_matrices_between_hidden_states_alone() -> None:
    model = DemoModel(small_config())
    matrices = (name for name, parameter in model.named_parameters() if is_matrix(name, parameter))
    assert {name.removesuffix(".weight").rpartition(".")[2] for name in matrices} == {
        "in_proj_qkv", "in_proj_z", "out_proj", "q_proj", "k_proj", "v_proj", "o_proj",
        "gate_up_proj", "down_proj", "gate_proj", "up_proj", "fc",
    }  # fmt: skip


def test_steps_lower_the_losses_of_a_batch(small: Path) -> None:
    model = DemoModel(small_config())
    optimizer = Optimizer(model, 0.0)
    batch = step_batch(load_tokenizer(small), 0, 0, tokens=200, prompt_share=0.1)
    seen = []
    for _ in range(20):
        losses = Losses()
        loss = batch_loss(model, batch, TINY, losses, with_mtp=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(3e-3)
        seen.append((losses.targets, losses.mtp))
    assert seen[-1][0] < seen[0][0] * 0.8
    assert seen[-1][1] < seen[0][1] * 0.8
    batch_loss(model, batch, TINY, Losses(), with_mtp=False).backward()  # type: ignore[no-untyped-call]
    assert model.mtp.fc.weight.grad is None


class Death(BaseException):
    """Stands for kill -9."""


def test_a_killed_run_ends_as_one_that_was_left_alone(small: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    alone = tmp_path_factory.mktemp("alone")
    for name in ("tokenizer.json",):
        (alone / name).write_bytes((small / name).read_bytes())
    run(Training(alone, TINY))

    killed = Training(small, TINY)
    with pytest.raises(Death):
        run(killed, die_at=5)
    (small / f"{FILE}.partial").write_bytes(b"half a state")
    resumed = Training(small, TINY)
    assert 0 < resumed.step < killed.step
    run(resumed)

    first, second = load_state(alone), load_state(small)
    assert first
    assert second
    assert (first.step, first.tokens_seen) == (second.step, second.tokens_seen)
    for name, tensor in first.model.items():
        torch.testing.assert_close(tensor, second.model[name], rtol=0, atol=0, msg=name)


def test_a_run_that_is_stopped_ends_after_its_step_and_is_saved(small: Path) -> None:
    training = Training(small, TINY)
    training.run(
        seconds=1e6, save_every_s=1e6, examine_every_s=1e6, examine=lambda _: None,
        is_stopped=lambda: training.step == 2,
    )  # fmt: skip
    assert (state := load_state(small))
    assert state.step == 2
    assert not training.is_done


def run(training: Training, die_at: int | None = None) -> None:
    """Saves after every other step: by a clock that goes on by one at each look."""

    def examine(training: Training) -> None:
        if training.step == die_at:
            raise Death

    ticks = iter(range(1_000_000))
    training.run(seconds=1e6, save_every_s=10, examine_every_s=0, examine=examine, clock=lambda: next(ticks))
    assert training.is_done


@pytest.fixture(scope="module")
def exported(model: DemoModel, tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "demo"
    export_checkpoint(model, tokenizer_dir, out, {"steps": 3})
    return out


def test_the_real_model_fits_into_the_repository() -> None:
    tensors = checkpoint_tensors(DemoModel(demo_config()))
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) < MAX_BYTES * 0.99


def test_mtp_tensors_are_named_as_released_checkpoints_name_them(model: DemoModel) -> None:
    names = {name for name in checkpoint_tensors(model) if name.startswith("mtp.")}
    assert {
        "mtp.fc.weight",
        "mtp.norm.weight",
        "mtp.pre_fc_norm_embedding.weight",
        "mtp.pre_fc_norm_hidden.weight",
    } <= names
    assert all(name.startswith("mtp.layers.0.") for name in names if name.count(".") > 2)


def test_transformers_reads_the_checkpoint(exported: Path, model: DemoModel) -> None:
    read = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    ids = some_ids(1, 2 * CHUNK)
    written = {name: tensor.float() for name, tensor in checkpoint_tensors(model).items()}
    for name, tensor in read.state_dict().items():
        torch.testing.assert_close(tensor, written[name] if name in written else written["model.embed_tokens.weight"])
    assert read(ids).logits.shape == (1, 2 * CHUNK, 2048)
    chat = [{"role": "user", "content": "What is 3 + 4?"}]
    tokenizer = AutoTokenizer.from_pretrained(exported)
    expected = cast(Any, tokenizer.apply_chat_template(chat, add_generation_prompt=True))["input_ids"]
    assert Tokenizer.from_dir(exported).encode_chat(chat) == expected


def test_the_engine_reads_the_checkpoint(exported: Path) -> None:
    checkpoint = Checkpoint(exported)
    assert checkpoint.config.num_experts == 10
    assert checkpoint.config.num_mtp_layers == 1
    assert not checkpoint.skipped
    checkpoint.close()


def test_an_answer_does_not_depend_on_the_others_in_its_batch(model: DemoModel, tokenizer_dir: Path) -> None:
    answer = transformers_answerer(model.causal, load_tokenizer(tokenizer_dir), max_new_tokens=16)
    chats = [[{"role": "user", "content": text}] for text in ("Hi", "What is 3 + 4?", "Sort 5, 3, 9, 1, 7, 2.")]
    together = answer(chats)
    assert [answer([chat])[0] for chat in chats] == together


def test_a_config_that_says_so_is_written(exported: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    assert config["mtp_num_hidden_layers"] == 1
    assert config["tie_word_embeddings"] is True
    assert np.prod([config["num_experts"], config["num_experts_per_tok"]]) == 30
