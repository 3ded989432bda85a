"""The bytes that a forward pass reads, counted by tensor names."""

import dataclasses
from pathlib import Path

import pytest

from edge.bench.traffic import Weights, kind_of, weights
from edge.checkpoint.pack import Pack
from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.cli import main
from edge.profiling import ATTENTION, DELTANET, HEAD, MLP, OTHER, ROUTER, SHARED_EXPERT


def sizes(work: Path, *, tied: bool) -> tuple[Pack, Weights]:
    config = dataclasses.replace(SMALL, tie_embeddings=tied)
    write_random_checkpoint(work / "checkpoint", config, tokenizer=False)
    assert main(["convert", str(work / "checkpoint"), str(work / "pack")]) == 0
    pack = Pack.open(work / "pack")
    return pack, weights(pack.manifest.contents)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("layers.3.self_attn.q_proj", ATTENTION),
        ("layers.0.linear_attn.conv1d", DELTANET),
        ("layers.0.mlp.gate", ROUTER),
        ("layers.0.mlp.shared_expert.up_proj", SHARED_EXPERT),
        ("layers.0.mlp.shared_expert_gate", SHARED_EXPERT),
        ("lm_head", HEAD),
        ("layers.0.input_layernorm", OTHER),
        ("layers.0.mlp.gate_proj", MLP),  # of a dense model: no router
    ],
)
def test_a_name_says_what_reads_the_tensor(name: str, kind: str) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize("tied", [False, True])
def test_a_pass_reads_every_weight_but_an_embedding_of_its_own(tmp_path: Path, tied: bool) -> None:
    pack, sized = sizes(tmp_path, tied=tied)
    entries = {entry.name: entry.nbytes for entry in pack.manifest.contents.dense}
    embedding = entries["embed_tokens"]
    assert sized.dense[HEAD] == (embedding if tied else entries["lm_head"])
    assert sized.pass_bytes(0) == sum(entries.values()) - (0 if tied else embedding)
    assert sized.pass_bytes(0, with_head=False) == sized.pass_bytes(0) - sized.dense[HEAD]
    assert sized.pass_bytes(7) - sized.pass_bytes(0) == 7 * pack.experts.block_bytes
