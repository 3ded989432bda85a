"""Fixtures of the conformance tests."""

import pytest

from tests.conformance.checkpoints import SHAPES, Checkpoint, build, load


@pytest.fixture(scope="session", params=SHAPES, ids=lambda shape: shape.name)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Each shape in turn, written to disk by transformers."""
    path = tmp_path_factory.mktemp("checkpoint") / "model"
    build(request.param).save_pretrained(path, save_original_format=not request.param.is_fused)
    # Read back, not cast: a cast to 16 bits and back would leave its mark on the rotary frequencies too.
    return Checkpoint(request.param, path, load(path))
