"""Arrays of a wrong dtype, rank, order or size are refused by name: nothing is converted, nothing is read beyond."""

from typing import Any

import numpy as np
import pytest

from edge import _native, kernels
from edge.checkpoint.layout import ExpertLayout, Format, MatrixLayout
from edge.checkpoint.matrix import Matrix, aligned_zeros
from tests.unit.edge.kernels.random_arrays import Random


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((2, 20), np.float64),
        np.zeros((2, 20), np.float16),
        np.zeros(20, np.float32),
        np.zeros((1, 2, 20), np.float32),
        np.zeros((2, 40), np.float32)[:, ::2],
        np.zeros((20, 2), np.float32).T,
        [[0.0] * 20],
    ],
    ids=["f64", "f16", "rank 1", "rank 3", "strided", "column-major", "list"],
)
def test_matmul_refuses_what_is_not_f32_by_rows(x: Any, random: Random) -> None:
    with pytest.raises(TypeError, match=r"incompatible function arguments[^$]*float32"):
        kernels.matmul(x, random.matrix(Format.F32, 7, 20))


def test_matmul_refuses_a_wrong_width(random: Random) -> None:
    with pytest.raises(ValueError, match="x has 21 in dimension 1, expected 20"):
        kernels.matmul(random.floats(2, 21), random.matrix(Format.F32, 7, 20))


def test_native_refuses_data_that_is_short_or_unaligned() -> None:
    layout = kernels._matrix(MatrixLayout(Format.Q4, 7, 40, 64))
    x, out = np.zeros((1, 40), np.float32), np.zeros((1, 7), np.float32)
    with pytest.raises(ValueError, match="data has 512 bytes, expected 576"):
        _native.matmul(x, aligned_zeros(512), layout, out)
    with pytest.raises(ValueError, match="data is not aligned to 64 bytes"):
        _native.matmul(x, aligned_zeros(640)[1:], layout, out)
    with pytest.raises(ValueError, match="out has 7 in dimension 1, expected 8"):
        _native.matmul(x, aligned_zeros(1088), kernels._matrix(MatrixLayout(Format.Q8, 8, 40, 64)), out)


def test_native_refuses_a_result_that_cannot_be_written() -> None:
    out = np.zeros((1, 7), np.float32)
    out.flags.writeable = False
    with pytest.raises(TypeError):
        _native.matmul(
            np.zeros((1, 32), np.float32), aligned_zeros(1024), kernels._matrix(MatrixLayout(Format.F32, 7, 32)), out
        )


QUANTIZED_LAYOUT = {"format": 3, "rows": 17, "cols": 60, "group": 64, "padded_cols": 64}
QUANTIZED_LAYOUT |= {"record_bytes": 1088, "nbytes": 2176}
FLOAT_LAYOUT = {"format": 0, "rows": 17, "cols": 60, "group": 0, "padded_cols": 64, "record_bytes": 0, "nbytes": 4352}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 7},
        {"format": -1},
        {"format": 2},
        {"format": 4},
        {"rows": 0},
        {"rows": 33},
        {"rows": 2**62},
        {"cols": 0},
        {"cols": 65},
        {"group": 0},
        {"group": 32},
        {"group": 128},
        {"padded_cols": 96},
        {"padded_cols": 2**31 - 64},
        {"record_bytes": 0},
        {"record_bytes": 1024},
        {"record_bytes": 2**64 - 64},
        {"nbytes": 2112},
        {"nbytes": 2**50},
    ],
    ids=str,
)
def test_native_refuses_a_quantized_layout_that_does_not_fit_its_bytes(change: dict[str, int]) -> None:
    _native.MatrixLayout(**QUANTIZED_LAYOUT)
    with pytest.raises(ValueError, match=r"format|rows|padded_cols|record"):
        _native.MatrixLayout(**(QUANTIZED_LAYOUT | change))


@pytest.mark.parametrize(
    "change",
    [
        {"format": 3},
        {"rows": 18},
        {"rows": 2**31 - 1},
        {"cols": 65},
        {"padded_cols": 72},
        {"padded_cols": 80},
        {"group": 64},
        {"record_bytes": 64},
        {"nbytes": 4351},
    ],
    ids=str,
)
def test_native_refuses_a_float_layout_that_does_not_fit_its_bytes(change: dict[str, int]) -> None:
    _native.MatrixLayout(**FLOAT_LAYOUT)
    with pytest.raises(ValueError, match=r"format|rows|padded_cols|record"):
        _native.MatrixLayout(**(FLOAT_LAYOUT | change))


def test_projections_refuse_what_does_not_fit(random: Random) -> None:
    w = random.matrix(Format.Q4, 7, 130)
    with pytest.raises(ValueError, match="there is no matrix"):
        _native.Projections([], [])
    with pytest.raises(ValueError, match="layouts has 131 in dimension 1, expected 130"):
        kernels.Projections(w, random.matrix(Format.Q4, 7, 131))
    with pytest.raises(ValueError, match=r"data has \d+ bytes, expected \d+"):
        _native.Projections([w.data[:-64]], [kernels._matrix(w.layout)])
    with pytest.raises(ValueError, match="data has 1 in dimension 0, expected 2"):
        _native.Projections([w.data], [kernels._matrix(w.layout)] * 2)
    project = kernels.Projections(w, w)
    with pytest.raises(ValueError, match="x has 129 in dimension 1, expected 130"):
        project(random.floats(2, 129))
    with pytest.raises(TypeError, match="float32"):
        project(random.floats(2, 260)[:, ::2])
    with pytest.raises(ValueError, match="out has 27 in dimension 0, expected 28"):
        project._native.multiply(random.floats(2, 130), np.empty(27, np.float32))


def test_gated_mlp_refuses_matrices_that_do_not_belong_together(random: Random) -> None:
    inner, down = random.matrix(Format.Q4, 66, 130), random.matrix(Format.Q4, 130, 66)
    with pytest.raises(ValueError, match="differ in the size of the expert"):
        kernels.GatedMlp(inner, random.matrix(Format.Q4, 65, 130), down)
    with pytest.raises(ValueError, match="differ in the hidden size"):
        kernels.GatedMlp(inner, random.matrix(Format.Q4, 66, 129), down)
    with pytest.raises(ValueError, match="differ in the size of the expert"):
        kernels.GatedMlp(inner, inner, inner)
    plain, coded = random.matrix(Format.F32, 66, 128), random.matrix(Format.Q4, 66, 128)
    with pytest.raises(ValueError, match="one of gate and up is quantised"):
        kernels.GatedMlp(plain, coded, random.matrix(Format.Q4, 128, 66))
    with pytest.raises(ValueError, match="differ in padded_cols"):
        kernels.GatedMlp(inner, random.matrix(Format.Q4, 66, 130, group=128), down)
    for scale in (random.matrix(Format.BF16, 2, 130), random.matrix(Format.BF16, 1, 131)):
        with pytest.raises(ValueError, match="scale is not one row of the hidden size"):
            kernels.GatedMlp(inner, inner, down, scale)
    with pytest.raises(ValueError, match="layouts are not those of gate, up, down"):
        _native.GatedMlp([inner.data] * 2, [kernels._matrix(inner.layout)] * 2)
    with pytest.raises(ValueError, match="data has 2 in dimension 0, expected 3"):
        _native.GatedMlp([inner.data] * 2, [kernels._matrix(inner.layout)] * 3)
    with pytest.raises(ValueError, match="x has 66 in dimension 1, expected 130"):
        kernels.GatedMlp(inner, inner, down)(random.floats(1, 66))


def test_read_ram_refuses_what_is_not_aligned_bytes() -> None:
    assert kernels.read_ram(aligned_zeros(4096)) == 0
    with pytest.raises(ValueError, match="data is not aligned to 64 bytes"):
        kernels.read_ram(aligned_zeros(4096)[4:])
    with pytest.raises(TypeError):
        kernels.read_ram(np.zeros(16, np.float32))


def test_native_refuses_an_expert_whose_parts_lie_outside_its_block() -> None:
    layout = ExpertLayout(*[MatrixLayout(Format.F32, 16, 16)] * 3)
    part = kernels._matrix(layout.gate)
    good = {"gate_offset": 0, "up_offset": 1024, "down_offset": 2048, "nbytes": 4096}
    _native.ExpertLayout(gate=part, up=part, down=part, **good)
    for change in ({"up_offset": 1000}, {"down_offset": 3136}, {"nbytes": 3000}, {"gate_offset": 2**64 - 64}):
        with pytest.raises(ValueError, match="not aligned or goes beyond"):
            _native.ExpertLayout(gate=part, up=part, down=part, **(good | change))


@pytest.mark.parametrize("k", [0, 10])
def test_route_refuses_k_beyond_the_experts(k: int, random: Random) -> None:
    with pytest.raises(ValueError, match=f"k is {k}, expected 1 to 9"):
        kernels.route(random.floats(2, 9), k)


def test_attention_refuses_more_tokens_than_fit(random: Random) -> None:
    q, k = random.floats(3, 4, 8), random.floats(10, 2, 8)
    with pytest.raises(ValueError, match="k has room for 10 tokens, start \\+ tokens is 11"):
        kernels.attention(q, k, k, 8)
    with pytest.raises(TypeError):
        kernels.attention(q, k, k, -1)
    with pytest.raises(ValueError, match="v has 9 in dimension 0"):
        kernels.attention(q, k, k[:9], 0)
    with pytest.raises(ValueError, match="multiple of the heads"):
        kernels.attention(random.floats(3, 3, 8), k, k, 0)


def test_gated_delta_refuses_a_transposed_state(random: Random) -> None:
    q, v, g = random.floats(2, 1, 6), random.floats(2, 2, 4), random.floats(2, 2)
    with pytest.raises(ValueError, match="state has 4 in dimension 1, expected 6"):
        kernels.gated_delta(q, q, v, g, g, random.floats(2, 4, 6))


def test_gates_of_the_delta_rule_refuse_other_heads(random: Random) -> None:
    a, heads = random.floats(2, 5), random.floats(5)
    with pytest.raises(ValueError, match="b has 4 in dimension 1, expected 5"):
        kernels.delta_gates(a, random.floats(2, 4), heads, heads)
    with pytest.raises(ValueError, match="rate has 4 in dimension 0, expected 5"):
        kernels.delta_gates(a, a, heads, random.floats(4))
    with pytest.raises(ValueError, match="gate has 5 in dimension 0, expected 2"):
        kernels.scale_rows(heads, a)


def test_causal_conv_refuses_other_widths(random: Random) -> None:
    x = random.floats(2, 5)
    with pytest.raises(ValueError, match="state has 4 in dimension 0, expected 3"):
        kernels.causal_conv(x, random.floats(4, 5), random.floats(4, 5))
    with pytest.raises(ValueError, match="weight has width 17"):
        kernels.causal_conv(x, random.floats(17, 5), random.floats(16, 5))


def test_gates_and_norms_refuse_unequal_shapes(random: Random) -> None:
    with pytest.raises(ValueError, match="gate has shape"):
        kernels.silu_mul(random.floats(2, 3), random.floats(3, 2))
    with pytest.raises(TypeError, match="C-contiguous"):
        kernels.sigmoid_mul(random.floats(4, 4)[:, ::2], random.floats(4, 2))
    with pytest.raises(ValueError, match="weight has 4 in dimension 0, expected 3"):
        kernels.rms_norm(random.floats(2, 3), random.floats(4), 1e-6, plus_one=True)


@pytest.mark.parametrize("count", [0, 1025])
def test_thread_counts_have_limits(count: int) -> None:
    with pytest.raises(ValueError, match=f"count is {count}, expected 1 to 1024"):
        kernels.set_num_threads(count)


def test_an_unknown_variant_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no kernels named mmx"):
        kernels.use_variant("mmx")
    with pytest.raises(ValueError, match=r"FLASHGATE_ISA is 'mmx'; this CPU can run .*portable"):
        kernels._choose_variant({"FLASHGATE_ISA": "mmx"})


def test_the_environment_chooses_a_variant() -> None:
    before = kernels.variant()
    kernels._choose_variant({"FLASHGATE_ISA": "portable"})
    assert kernels.variant() == "portable"
    kernels._choose_variant({"FLASHGATE_ISA": before})
    assert kernels.variant() == before


def test_a_matrix_of_the_wrong_size_never_reaches_the_kernel() -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        Matrix(MatrixLayout(Format.Q4, 7, 32, 64), aligned_zeros(64))
