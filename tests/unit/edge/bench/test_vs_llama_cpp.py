"""The comparison with llama.cpp: what of it needs no llama.cpp."""

import sys
from pathlib import Path

import numpy as np
import pytest

from edge.checkpoint.geometries import geometry
from tests.bench import vs_llama_cpp
from tests.bench.llama_gguf import codes, conv_channels, file_bytes, matrices, nbytes
from tests.bench.vs_llama_cpp import Case, Failed, Rounds, check_modules, check_space, parse, summary

CONFIG = geometry("qwen3.5-397b-a17b", num_layers=8, num_experts=128).to_json()
CASE = Case(3_000_000_000, 64)


def result(decode: float, prompt: float) -> dict[str, object]:
    shares = {"decode_roof_share": 0.9, "prefill_roof_share": 0.5}
    return {"decode_tokens_per_second": decode, "prefill_tokens_per_second": prompt, "version": "1.2", **shares}


def test_missing_modules_are_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vs_llama_cpp, "MODULES", ("json", "no_such_module"))
    with pytest.raises(Failed, match=r"has no no_such_module: pip install 'flashgate\[bench-llama\]'"):
        check_modules(sys.executable)


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"has .* free; both models take 9000000.0 GB: see --dir"):
        check_space(tmp_path, 9 * 10**15)
    check_space(tmp_path, 1)


def test_a_run_that_fails_is_told_with_its_last_words() -> None:
    program = "import sys; sys.exit('out of luck')"
    with pytest.raises(Failed, match="ended with 1: out of luck"):
        vs_llama_cpp.run([sys.executable, "-c", program])


def test_both_sides_have_as_many_bits_per_weight() -> None:
    assert nbytes((7, 64, 4096)) == 7 * 64 * 4096 * 4.5 / 8
    # 9.0 GB, of which 128 experts of 7.08 MB in each of 8 layers.
    assert file_bytes(CONFIG) == pytest.approx(9.0e9, rel=0.03)


def test_every_matrix_of_the_geometry_is_there_once() -> None:
    shapes = list(matrices(CONFIG))
    assert len({name for name, _ in shapes}) == len(shapes)
    assert dict(shapes)["blk.3.attn_q.weight"] == (2 * 32 * 256, 4096)
    assert dict(shapes)["blk.0.attn_qkv.weight"] == (conv_channels(CONFIG), 4096) == (12288, 4096)
    assert dict(shapes)["blk.7.ffn_down_exps.weight"] == (128, 4096, 1024)
    assert not any("attn_qkv" in name for name, _ in shapes if name.startswith(("blk.3.", "blk.7.")))


def test_ratios_are_of_the_runs_beside_each_other() -> None:
    rounds = Rounds([result(4, 30), result(9, 20), result(8, 40)], [result(2, 10), result(3, 10), result(8, 10)])
    assert rounds.ratios("decode_tokens_per_second") == [2, 3, 1]
    head, decode, prompt = summary(CASE, rounds)
    assert head == "3.0 GB, prompt of 64 tokens: 3 rounds, llama-cpp-python 1.2"
    assert "8.00 against     3.00 tokens/s: 2.00x (1.00 to 3.00); 0.90 of our roof" in decode
    assert "30.00 against    10.00 tokens/s: 3.00x (2.00 to 4.00); 0.50 of our roof" in prompt


def test_several_sizes_and_prompts_are_cases_of_the_same_models() -> None:
    args = parse(["--memory", "3GB", "12GB", "--prompt-tokens", "32", "512"])
    assert (args.memory, args.prompt_tokens, args.rounds) == (["3GB", "12GB"], [32, 512], 3)


def test_random_weights_have_no_mean_that_would_make_all_tokens_alike() -> None:
    (piece,) = codes((64, 512), 0.25, np.random.default_rng(0))
    scales = np.ascontiguousarray(piece[:, :2]).view(np.float16).astype(np.float32)
    weights = scales * np.concatenate((piece[:, 2:] & 15, piece[:, 2:] >> 4), axis=1).astype(np.float32) - 8 * scales
    assert abs(weights.mean()) < 0.25 * 3 / weights.size**0.5
    assert weights.std() == pytest.approx(0.25, rel=0.02)
