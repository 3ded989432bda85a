"""What logs may hold: our own fields, and of others' records the template only."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from router.logging import configure, failure_fields, logger_to

CANARY = "CANARY-4711"


@pytest.fixture
def own_root() -> Iterator[logging.Logger]:
    """The root logger, put back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield root
    root.handlers, root.level = handlers, level
    logging.captureWarnings(capture=False)


def test_line_is_json_with_level_and_time() -> None:
    stream = io.StringIO()
    logger_to(stream).warning("backend_failed", backend="edge")
    line = json.loads(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"service": "gateway", "event": "backend_failed", "level": "warning", "backend": "edge"}


def test_others_records_keep_their_template_and_lose_their_arguments(
    own_root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure()
    other = logging.getLogger("some.library")
    other.warning("could not read %r", CANARY)
    other.warning(f"could not read {CANARY}")
    try:
        int(CANARY)
    except ValueError:
        other.exception("failed")
    other.info("request to %s", CANARY)
    written = capsys.readouterr().err
    lines = [json.loads(line) for line in written.splitlines()]
    assert CANARY not in written
    assert [line["template"] for line in lines] == ["could not read %r", "", ""]
    assert lines[2]["error"] == "ValueError"


def test_failure_is_told_by_type_and_place() -> None:
    try:
        int(CANARY)
    except ValueError as exc:
        fields = failure_fields(exc)
    assert fields["error"] == "ValueError"
    assert CANARY not in str(fields)
    assert "test_router_logging.py" in str(fields["at"])


def test_stream_that_nobody_reads_loses_lines_and_nothing_else() -> None:
    stream = io.StringIO()
    log = logger_to(stream)
    stream.close()
    log.info("request_ended")
