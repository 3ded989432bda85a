"""What the MTP layer foretells, against the same layer put together from transformers' own modules."""

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from edge.batch import Batch, Segment
from edge.cli import main
from edge.engine_options import EngineOptions
from edge.engine_parts import EngineParts, open_parts
from edge.layers.mtp import MtpLayer
from edge.speculation.drafter import DraftRequest, MtpDrafter
from edge.state import SequenceState
from tests.conformance.checkpoints import SHAPES, Shape, build, clear_prompt, load

NUM_TOKENS = 60
LIMITS = {16: 1e-3, 4: 2e-2}  # relative L2 error at every position, as for the model itself
CUTS = ([59, 1], [1, 1, 17, 41], [30, 30])
FAMILIES = ("interval-of-four", "mixed-with-vision-parts-bf16", "fused-projections", "dense-hybrid-tied")


class Oracle(nn.Module):
    """The layer as the releases have it, every part of it transformers'; vLLM's qwen3_next_mtp.py joins them so."""

    def __init__(self, causal: transformers.PreTrainedModel) -> None:
        super().__init__()
        trunk: Any = causal.model.language_model if hasattr(causal.model, "language_model") else causal.model
        full = next(layer for layer in trunk.layers if hasattr(layer, "self_attn"))
        self.pre_fc_norm_embedding, self.pre_fc_norm_hidden, self.norm = (copy.deepcopy(trunk.norm) for _ in range(3))
        width = trunk.norm.weight.shape[0]
        self.fc = nn.Linear(2 * width, width, bias=False)
        self.layers = nn.ModuleList([copy.deepcopy(full)])

    def forward(self, causal: Any, ids: Sequence[int], tail: Sequence[int] = ()) -> torch.Tensor:
        """Logits [T - 1, vocab]: row t has seen ids up to t + 1. `tail`: rows more, fed on the layer's own output."""
        trunk = causal.model
        hidden = trunk(torch.tensor([list(ids)]), use_cache=False).last_hidden_state[0, :-1]
        following = list(ids[1:])
        for token in (*tail, None):
            joined = self._joined(trunk.embed_tokens(torch.tensor(following)), hidden)
            positions = torch.arange(len(following))[None]
            rotated = trunk.rotary_emb(joined[None], positions)
            mask = torch.full((len(following),) * 2, float("-inf")).triu(1)[None, None]
            layer: Any = self.layers[0]
            out = layer(joined[None], position_embeddings=rotated, attention_mask=mask, position_ids=positions)
            out = self.norm(out[0] if isinstance(out, tuple) else out)[0]
            if token is not None:
                hidden, following = torch.cat((hidden, out[-1:])), [*following, token]
        logits: torch.Tensor = causal.lm_head(out)
        return logits

    def _joined(self, embedded: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        joined: torch.Tensor = self.fc(
            torch.cat((self.pre_fc_norm_embedding(embedded), self.pre_fc_norm_hidden(hidden)), dim=-1)
        )
        return joined


@dataclass(frozen=True)
class Packed:
    """A checkpoint with an MTP layer packed by us, and the oracle over the very weights that the pack holds."""

    bits: int
    parts: EngineParts
    causal: Any
    oracle: Oracle
    ids: list[int]

    @property
    def layer(self) -> MtpLayer:
        """Ours."""
        assert self.parts.mtp is not None
        return self.parts.mtp

    def expected(self, ids: Sequence[int], tail: Sequence[int] = ()) -> NDArray[np.float32]:
        with torch.no_grad():
            return np.asarray(self.oracle(self.causal, ids, tail).numpy())

    def state(self) -> SequenceState:
        return SequenceState(self.parts.pack.config, NUM_TOKENS + 8)

    def advance(self, state: SequenceState, ids: Sequence[int]) -> None:
        batch = self.parts.model.batch([Segment(ids, state)])
        self.parts.model.run(batch)
        self.drafter.follow(batch)

    @property
    def drafter(self) -> MtpDrafter:
        return MtpDrafter(self.parts.pack.config, self.parts.model, self.layer)

    def logits(self, state: SequenceState, token: int) -> NDArray[np.float32]:
        """What follows the next token, f32[vocab]."""
        model = self.parts.model
        self.drafter.catch_up([state])
        x = self.layer.join(model.embed([token]), state.last_hidden()[None])
        segment = Segment([token], state, at=state.length - 1)
        logits = model.head(self.layer.forward(Batch(self.parts.pack.config, [segment], x)))
        return logits.reshape(-1)


def write_checkpoint(shape: Shape, path: Path) -> None:
    """As the releases: the layer's tensors beside the model's, with names of their own."""
    model = build(shape)
    model.save_pretrained(path)
    generator = torch.Generator().manual_seed(7)
    oracle = Oracle(model)
    for name, parameter in oracle.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = 0.3 if parameter.ndim == 1 else (2 if name.endswith("mlp.gate.weight") else 1) / noise.shape[-1] ** 0.5
        parameter.data.copy_(noise * scale)
    dtype, file = getattr(torch, shape.dtype), path / "model.safetensors"
    own = {f"mtp.{name}": tensor.to(dtype) for name, tensor in oracle.state_dict().items()}
    save_file(load_file(file) | own, file, metadata={"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    config.get("text_config", config)["mtp_num_hidden_layers"] = 1
    (path / "config.json").write_text(json.dumps(config))


def read_oracle(causal: transformers.PreTrainedModel, file: Path) -> Oracle:
    oracle = Oracle(causal)
    tensors = load_file(file)
    own = {name.removeprefix("mtp."): tensor.float() for name, tensor in tensors.items() if name.startswith("mtp.")}
    oracle.load_state_dict(own)
    return oracle


@pytest.fixture(scope="module", params=FAMILIES)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "model"
    write_checkpoint(next(shape for shape in SHAPES if shape.name == request.param), path)
    return path


@pytest.fixture(scope="module", params=[*LIMITS], ids=lambda bits: f"{bits}-bit")
def packed(request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Packed]:
    bits, work = request.param, tmp_path_factory.mktemp("packed")
    assert main(["convert", str(source), str(work / "pack"), "--bits", str(bits)]) == 0
    weights = source
    if bits != 16:
        weights = work / "exported"
        assert main(["export", str(work / "pack"), str(weights)]) == 0
    causal: Any = load(weights)
    parts = open_parts(work / "pack", EngineOptions(2_000_000_000, NUM_TOKENS))
    ids = clear_prompt(causal, parts.pack.config.vocab_size, NUM_TOKENS)
    yield Packed(bits, parts, causal, read_oracle(causal, weights / "model.safetensors"), ids)
    parts.close()


def relative_error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float((np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())


def foretold(packed: Packed, cuts: Sequence[int]) -> NDArray[np.float32]:
    """At the end of each cut but the last, the logits of what follows the next token."""
    state, found = packed.state(), []
    for size in cuts:
        if state.length:
            found.append(packed.logits(state, packed.ids[state.length]))
        packed.advance(state, packed.ids[state.length : state.length + size])
    return np.array(found)


def test_what_it_foretells_is_what_transformers_says(packed: Packed) -> None:
    found = foretold(packed, [1] * NUM_TOKENS)
    assert relative_error(found, packed.expected(packed.ids)) < LIMITS[packed.bits]


def test_chunks_change_no_bit(packed: Packed) -> None:
    expected = foretold(packed, [1] * NUM_TOKENS)
    for cuts in CUTS:
        ends = np.cumsum(cuts)[:-1] - 1
        np.testing.assert_array_equal(foretold(packed, cuts), expected[ends])


def test_a_chain_of_guesses_is_transformers_own(packed: Packed) -> None:
    state, prompt = packed.state(), packed.ids[:40]
    packed.advance(state, prompt[:-1])
    before = [array.copy() for arrays in state.contents(state.length - 1) for array in arrays]
    (drafts,) = packed.drafter.draft([DraftRequest(state, prompt[-1], 4)])
    assert len(drafts) == 4
    for number, token in enumerate(drafts):
        logits = packed.expected(prompt, drafts[:number])[-1]
        assert logits.max() - logits[token] <= LIMITS[packed.bits] * np.linalg.norm(logits)
    after = [array for arrays in state.contents(state.length - 1) for array in arrays]
    for was, now in zip(before, after, strict=True):
        np.testing.assert_array_equal(now, was)
