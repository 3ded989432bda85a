"""Which rows a wish becomes, in which order, and how they are told apart."""

from pathlib import Path

import pytest

from edge.errors import CheckpointError, EvaluationError, RequestError
from edge.evaluation.variants import Choices, Variant, Weights, labels, variants


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").touch()
    return tmp_path / "model"


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "manifest.json").touch()
    return tmp_path / "pack"


def test_a_checkpoint_is_compared_with_itself_at_16_bits(checkpoint: Path) -> None:
    rows = variants(Choices((checkpoint,), bits=(4, 2)))
    assert rows == [Variant(Weights(checkpoint, bits)) for bits in (16, 4, 2)]


def test_no_row_stands_twice(checkpoint: Path) -> None:
    rows = variants(Choices((checkpoint, checkpoint), bits=(16, 2, 16)))
    assert rows == [Variant(Weights(checkpoint, bits)) for bits in (16, 2)]


def test_the_first_pack_is_the_reference_of_the_others(pack: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert variants(Choices((pack, other))) == [Variant(Weights(pack)), Variant(Weights(other))]


def test_a_named_reference_comes_first(pack: Path, checkpoint: Path) -> None:
    assert variants(Choices((pack,), reference=checkpoint)) == [
        Variant(Weights(checkpoint, 16)),
        Variant(Weights(pack)),
    ]


def test_each_choice_is_varied_alone(checkpoint: Path) -> None:
    rows = variants(Choices((checkpoint,), bits=(16, 4), slots=(3, 9)))
    assert [(row.weights.bits, row.slots) for row in rows] == [
        (16, None), (16, 3), (16, 9), (4, None), (4, 3), (4, 9),
    ]  # fmt: skip
    assert [row.is_exact for row in rows] == [False, True, True] * 2


def test_what_cannot_be_is_refused_before_anything_runs(checkpoint: Path, pack: Path) -> None:
    with pytest.raises(CheckpointError, match="5 bits; possible: 16"):
        Choices((checkpoint,), bits=(4, 5))
    with pytest.raises(EvaluationError, match="slots is 0: it must be at least 1"):
        Choices((pack,), slots=(0,))
    with pytest.raises(RequestError, match="experts_per_token is 0: it must be at least 1"):
        Choices((pack,), experts_per_token=(2, 0))
    with pytest.raises(RequestError, match=r"substitute is 1\.5: it must be above 0 and at most 1"):
        Choices((pack,), substitutes=(1.5,))
    for choices in (Choices((pack,), bits=(4,)), Choices((pack,), calibration=Path("text"))):
        with pytest.raises(
            EvaluationError, match="pack is packed already: --bits and --calibration need its checkpoint"
        ):
            variants(choices)


def test_each_precision_but_16_bits_is_calibrated_too(checkpoint: Path) -> None:
    text = Path("text")
    rows = variants(Choices((checkpoint,), bits=(16, 3, 2), calibration=text))
    assert [(row.weights.bits, row.weights.calibration) for row in rows] == [
        (16, None), (3, None), (3, text), (2, None), (2, text),
    ]  # fmt: skip


def test_only_where_the_models_own_experts_run_must_nothing_change(pack: Path) -> None:
    choices = Choices((pack,), experts_per_token=(2,), substitutes=(0.5,), slots=(3, 9), speculates=True)
    weights = Weights(pack)
    assert [(row, row.is_exact) for row in variants(choices)] == [
        (Variant(weights), False),
        (Variant(weights, experts_per_token=2), False),
        (Variant(weights, slots=3), True),
        (Variant(weights, slots=9), True),
        (Variant(weights, speculates=True), True),
        (Variant(weights, substitute=0.5, slots=3), False),
        (Variant(weights, substitute=0.5, slots=9), False),
    ]


def test_rows_are_told_apart_by_what_differs() -> None:
    one, two, same = Weights(Path("a/x")), Weights(Path("b/y")), Weights(Path("b/x"))
    ways = [
        Variant(one),
        Variant(one, slots=5),
        Variant(one, 2),
        Variant(one, None, 0.5),
        Variant(one, speculates=True),
    ]
    assert labels(ways, ["4 bits"] * 5) == [
        "4 bits", "4 bits, 5 slots", "4 bits, K 2", "4 bits, substitute 0.5", "4 bits, speculation",
    ]  # fmt: skip
    assert labels([Variant(one), Variant(two)], ["16 bits", "3 bits"]) == ["x 16 bits", "y 3 bits"]
    assert labels([Variant(one), Variant(same)], ["16 bits"] * 2) == ["a/x 16 bits", "b/x 16 bits"]
