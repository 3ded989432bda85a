"""Log lines: JSON on stderr, our own events and other libraries' alike. Never prompts or answers."""

import contextlib
import io
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import TextIO, cast

import structlog


def configure(ignored: tuple[type[BaseException], ...] = (), level: int = logging.INFO) -> None:
    """Send every log line of this process to stderr as one JSON object, if of `level` or above.

    `ignored` errors of libraries say nothing.
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _add_service,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Steadfast(sys.stderr))),
    )
    logging.captureWarnings(capture=True)
    logging.basicConfig(handlers=[_ForeignHandler(ignored)], level=max(level, logging.WARNING), force=True)


def _add_service(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """`flashgate up` mixes the lines of three processes."""
    return {"service": "edge", **event}


def error_fields(error: BaseException) -> dict[str, object]:
    """What may be said of an unforeseen error: its kind and places. Its text might quote a request."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return {"error": type(error).__name__, "at": [f"{frame.filename}:{frame.lineno}" for frame in frames]}


class _Steadfast(io.TextIOBase):
    """A stream whose reader may go away: lines are then lost, but requests are still answered."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except (OSError, ValueError):
            self._give_up()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def _give_up(self) -> None:
        """Let what is buffered, and all that follows, go nowhere: the interpreter's flush at exit would fail too."""
        with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())


class _ForeignHandler(logging.Handler):
    """Other libraries' records, without their arguments and their errors' texts."""

    def __init__(self, ignored: tuple[type[BaseException], ...]) -> None:
        super().__init__()
        self._ignored = ignored

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and isinstance(record.exc_info[1], self._ignored):
            return
        fields: dict[str, object] = {"logger": record.name, "template": str(record.msg) if record.args else ""}
        if record.exc_info and record.exc_info[1] is not None:
            fields |= error_fields(record.exc_info[1])
        structlog.get_logger().log(record.levelno, "foreign_log", **fields)
