"""What every test shares: property tests that repeat exactly, and libraries told that there is no network."""

import logging
import os
import signal
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

# `derandomize` makes each run try the same examples; a time limit per example would make a busy machine fail.
settings.register_profile("flashgate", derandomize=True, deadline=None, database=None)
settings.load_profile("flashgate")

# A shell that starts the suite in the background makes it ignore SIGINT, and every process that a test starts and
# interrupts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

PROCESS_BYTES = 60_000_000  # of an edge process before it has loaded a model


@pytest.fixture(scope="session", autouse=True)
def _small_process() -> Iterator[None]:
    """Engines plan as in a process of their own: this one holds whatever torch and other tests left in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge.engine_parts.resident_bytes", lambda: PROCESS_BYTES)
        yield


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A command run in this process sets up its log: the next test must hear what it listens for all the same."""
    config, level = structlog.get_config(), logging.getLogger().level
    yield
    structlog.configure(**config)
    logging.getLogger().setLevel(level)
