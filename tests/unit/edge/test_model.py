"""The forward pass over an in-memory pack: how a sequence is cut and when experts arrive changes no bit."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge import kernels
from edge.batch import Segment
from edge.checkpoint.layout import ExpertLayout, Format, MatrixLayout
from edge.checkpoint.matrix import (
    Matrix,
    aligned_zeros,
    biases,
    codes,
    empty_matrix,
    expert_matrices,
    float_rows,
    scales,
)
from edge.config import FULL_ATTENTION, LINEAR_ATTENTION, ModelConfig
from edge.errors import StorageError
from edge.layers.moe import Batch
from edge.model import Model
from edge.state import SequenceState

CONFIG = ModelConfig(
    hidden_size=40,
    num_layers=3,
    vocab_size=61,
    layer_types=(LINEAR_ATTENTION, FULL_ATTENTION, LINEAR_ATTENTION),
    rms_norm_eps=1e-6,
    num_attention_heads=6,
    num_kv_heads=2,
    head_dim=12,
    rotary_dim=8,
    rope_theta=1e4,
    num_key_heads=2,
    num_value_heads=6,
    key_head_dim=10,
    value_head_dim=14,
    conv_width=4,
    num_experts=7,
    top_k=3,
    expert_size=22,
    shared_expert_size=18,
    tie_embeddings=False,
    max_positions=512,
    eos_token_ids=(),
)
CAPACITY = 64
IDS = np.random.default_rng(3).integers(0, CONFIG.vocab_size, CAPACITY).tolist()


def random_matrix(rng: np.random.Generator, form: Format, rows: int, cols: int) -> Matrix:
    """Values of variance 1 / cols, so that activations keep their size."""
    matrix = empty_matrix(MatrixLayout(form, rows, cols, 64 if form.is_quantized else 0))
    if form.is_quantized:
        step = np.sqrt(12 / cols) / 2**form.bits
        codes(matrix)[...] = rng.integers(0, 256, codes(matrix).shape)
        scales(matrix)[...], biases(matrix)[...] = step, -step * 2**form.bits / 2
    else:
        values = (rng.standard_normal((rows, cols)) / np.sqrt(cols)).astype(np.float32)
        float_rows(matrix).view(np.float32)[:, :cols] = values
    return matrix


def random_vector(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return (rng.standard_normal(shape) * 0.3).astype(np.float32)


def random_tensors(config: ModelConfig, form: Format) -> dict[str, Matrix | NDArray[np.float32]]:
    rng = np.random.default_rng(7)
    hidden, heads, values = config.hidden_size, config.num_value_heads, config.num_value_heads * config.value_head_dim
    channels = 2 * config.num_key_heads * config.key_head_dim + values
    queries, kv = config.num_attention_heads * config.head_dim, config.num_kv_heads * config.head_dim
    tensors: dict[str, Matrix | NDArray[np.float32]] = {
        "embed_tokens": random_matrix(rng, form, config.vocab_size, hidden),
        "lm_head": random_matrix(rng, form, config.vocab_size, hidden),
        "norm": random_vector(rng, hidden),
    }
    full = {
        "q_proj": (2 * queries, hidden),
        "k_proj": (kv, hidden),
        "v_proj": (kv, hidden),
        "o_proj": (hidden, queries),
    }
    linear = {"in_proj_qkv": (channels, hidden), "in_proj_z": (values, hidden), "out_proj": (hidden, values)}
    linear |= {"in_proj_b": (heads, hidden), "in_proj_a": (heads, hidden)}
    mlp = {"gate": (config.num_experts, hidden), "shared_expert_gate": (1, hidden)}
    shared = {"gate_proj": (config.shared_expert_size, hidden), "up_proj": (config.shared_expert_size, hidden)}
    mlp |= {f"shared_expert.{name}": shape for name, shape in shared.items()}
    mlp["shared_expert.down_proj"] = (hidden, config.shared_expert_size)
    vectors: dict[str, tuple[int, ...]]
    for index, kind in enumerate(config.layer_types):
        place = f"layers.{index}."
        tensors |= {
            place + name: random_vector(rng, hidden) for name in ("input_layernorm", "post_attention_layernorm")
        }
        tensors |= {f"{place}mlp.{name}": random_matrix(rng, form, *shape) for name, shape in mlp.items()}
        if kind == FULL_ATTENTION:
            mixer, matrices, vectors = "self_attn", full, {"q_norm": (config.head_dim,), "k_norm": (config.head_dim,)}
        else:
            mixer, matrices = "linear_attn", linear
            vectors = {"conv1d": (channels, config.conv_width), "norm": (config.value_head_dim,)}
            vectors |= {"dt_bias": (heads,), "A_log": (heads,)}
        tensors |= {f"{place}{mixer}.{name}": random_matrix(rng, form, *shape) for name, shape in matrices.items()}
        tensors |= {f"{place}{mixer}.{name}": random_vector(rng, *shape) for name, shape in vectors.items()}
    return tensors


class MemoryExperts:
    """All experts in RAM, handed out in an order of the test's choosing."""

    def __init__(self, config: ModelConfig, form: Format) -> None:
        group = 64 if form.is_quantized else 0
        gate = MatrixLayout(form, config.expert_size, config.hidden_size, group)
        self.layout = ExpertLayout(gate, gate, MatrixLayout(form, config.hidden_size, config.expert_size, group))
        self.is_backwards = False
        self.broken: tuple[int, int] | None = None
        rng = np.random.default_rng(11)
        self._blocks = {
            (layer, expert): self._random_block(rng, form)
            for layer in range(config.num_layers)
            for expert in range(config.num_experts)
        }

    def _random_block(self, rng: np.random.Generator, form: Format) -> NDArray[np.uint8]:
        block = aligned_zeros(self.layout.block_bytes, 4096)
        for part in expert_matrices(self.layout, block):
            part.data[:] = random_matrix(rng, form, part.layout.rows, part.layout.cols).data
        return block

    @contextmanager
    def fetch(
        self, layer: int, experts: Sequence[int], *, is_scan: bool, spared: Sequence[int] = ()
    ) -> Iterator[Iterator[Batch]]:
        yield self._batches(layer, experts[::-1] if self.is_backwards else experts)

    def holds(self, layer: int, expert: int) -> bool:
        return True

    def _batches(self, layer: int, experts: Sequence[int]) -> Iterator[Batch]:
        for expert in experts:
            if (layer, expert) == self.broken:
                raise StorageError("a broken expert")
            yield [(expert, self._blocks[layer, expert])]


@dataclasses.dataclass
class Setup:
    """A model and the experts it asks."""

    config: ModelConfig
    experts: MemoryExperts
    model: Model

    def logits(self, cuts: Sequence[int], state: SequenceState | None = None) -> NDArray[np.float32]:
        """All positions of IDS, computed in chunks of the given sizes."""
        state = state or SequenceState(self.config, CAPACITY)
        parts, start = [], 0
        for size in cuts:
            parts.append(self.model.logits(self.model.forward([Segment(IDS[start : start + size], state)])))
            start += size
        assert start == CAPACITY == state.length
        return np.concatenate(parts)


def make_setup(form: Format, config: ModelConfig = CONFIG) -> Setup:
    experts = MemoryExperts(config, form)
    return Setup(config, experts, Model(config, random_tensors(config, form), experts))


@pytest.fixture(scope="module", params=[Format.F32, Format.Q8, Format.Q4], ids=lambda form: form.name)
def setup(request: pytest.FixtureRequest) -> Setup:
    return make_setup(request.param)


def test_a_failed_read_leaves_a_model_that_serves_the_next_sequence(setup: Setup) -> None:
    expected = setup.logits([CAPACITY])
    state = SequenceState(setup.config, CAPACITY)
    setup.experts.broken = (2, 4)
    with pytest.raises(StorageError):
        setup.model.forward([Segment(IDS, state)])
    setup.experts.broken = None
    state.reset()
    np.testing.assert_array_equal(setup.logits([CAPACITY], state), expected)


def test_what_is_asked_before_each_layer_may_stop_the_pass(setup: Setup) -> None:
    asked = 0

    def stop_at_second() -> tuple[()]:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise InterruptedError
        return ()

    with pytest.raises(InterruptedError):
        setup.model.forward([Segment(IDS, SequenceState(setup.config, CAPACITY))], stop_at_second)
    assert asked == 2


def segments(config: ModelConfig, *lengths: int) -> list[Segment]:
    """Sequences that have seen nothing yet, each beginning with another id."""
    return [Segment(IDS[i : i + length], SequenceState(config, CAPACITY)) for i, length in enumerate(lengths)]


def test_sequences_side_by_side_are_computed_as_if_alone(setup: Setup) -> None:
    together = segments(setup.config, 5, 1, 30, 1)
    alone = [setup.model.forward([segment]) for segment in segments(setup.config, 5, 1, 30, 1)]
    np.testing.assert_array_equal(setup.model.forward(together), np.concatenate(alone))
    assert [segment.state.length for segment in together] == [5, 1, 30, 1]


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_sequence_that_leaves_in_the_middle_changes_nothing_for_the_others(setup: Setup, layer: int) -> None:
    asked = 0

    def second_leaves() -> list[int]:
        nonlocal asked
        asked += 1
        return [1] if asked >= layer else []

    together = segments(setup.config, 9, 20, 1)
    hidden = setup.model.forward(together, second_leaves)
    alone = [setup.model.forward([segment]) for segment in segments(setup.config, 9, 20, 1)]
    np.testing.assert_array_equal(hidden, np.concatenate([alone[0], alone[2]]))
    assert [segment.state.length for segment in together] == [9, 0, 1]


def test_a_pass_that_everybody_leaves_ends(setup: Setup) -> None:
    batch = setup.model.batch(segments(setup.config, 9, 1))
    setup.model.run(batch, lambda: [0, 1])
    assert (batch.kept, batch.x.shape) == ([], (0, CONFIG.hidden_size))


def test_a_failed_read_costs_only_the_sequences_that_need_that_expert(setup: Setup) -> None:
    lengths = [1] * 12
    alone = [setup.model.forward([segment]) for segment in segments(setup.config, *lengths)]
    batch = setup.model.batch(segments(setup.config, *lengths))
    setup.experts.broken = (1, 3)
    setup.model.run(batch)
    setup.experts.broken = None
    assert batch.errors
    assert batch.kept
    assert sorted([*batch.kept, *batch.errors]) == list(range(12))
    np.testing.assert_array_equal(batch.x, np.concatenate([alone[index] for index in batch.kept]))
    np.testing.assert_array_equal(np.concatenate([batch.last_rows(index) for index in batch.kept[1:]]), batch.x[1:])


@settings(max_examples=12)
@given(cuts=st.lists(st.integers(1, 20), min_size=1, max_size=CAPACITY))
def test_a_sequence_gives_the_same_bits_however_it_is_cut(setup: Setup, cuts: list[int]) -> None:
    sizes: list[int] = []
    for size in cuts:
        sizes.append(min(size, CAPACITY - sum(sizes)))
    sizes.append(CAPACITY - sum(sizes))
    np.testing.assert_array_equal(setup.logits([size for size in sizes if size]), setup.logits([CAPACITY]))


@pytest.mark.parametrize("cuts", [[CAPACITY], [1] * CAPACITY])
def test_the_order_in_which_experts_arrive_changes_no_bit(setup: Setup, cuts: list[int]) -> None:
    expected = setup.logits(cuts)
    setup.experts.is_backwards = True
    found = setup.logits(cuts)
    setup.experts.is_backwards = False
    np.testing.assert_array_equal(found, expected)


def test_the_number_of_threads_changes_no_bit(setup: Setup) -> None:
    expected = setup.logits([40, 1, 23])
    try:
        for count in (1, 3, 5):
            kernels.set_num_threads(count)
            np.testing.assert_array_equal(setup.logits([40, 1, 23]), expected)
    finally:
        kernels.set_num_threads(2)


def test_a_tied_head_is_the_embedding() -> None:
    untied, tied = make_setup(Format.F32), make_setup(Format.F32, dataclasses.replace(CONFIG, tie_embeddings=True))
    tensors = random_tensors(CONFIG, Format.F32) | {"lm_head": random_tensors(CONFIG, Format.F32)["embed_tokens"]}
    untied.model = Model(CONFIG, tensors, untied.experts)
    np.testing.assert_array_equal(tied.logits([CAPACITY]), untied.logits([CAPACITY]))
