"""Fixtures of the conformance tests."""

import pytest

from tests.conformance.checkpoints import SHAPES, Checkpoint, Shape, build, load


@pytest.fixture(scope="session", params=SHAPES, ids=lambda shape: shape.name)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Each shape in turn, written to disk by transformers."""
    path = tmp_path_factory.mktemp("checkpoint") / "model"
    shape: Shape = request.param
    build(shape).save_pretrained(path, save_original_format=not shape.is_fused, max_shard_size=shape.shard_size)
    # Read back, not cast: a cast to 16 bits and back would leave its mark on the rotary frequencies too.
    return Checkpoint(shape, path, load(path))
