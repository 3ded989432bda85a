"""Log lines: JSON on stderr, our own events and other libraries' alike. Never content."""

import contextlib
import io
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import TextIO, cast

import structlog


def configure() -> None:
    """Send every log line of this process to stderr as one JSON object."""
    structlog.configure(
        processors=[
            _add_service,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Steadfast(sys.stderr))),
    )
    logging.captureWarnings(True)
    logging.basicConfig(handlers=[_ForeignHandler()], level=logging.WARNING, force=True)
    logging.getLogger("uvicorn.error").addFilter(_is_no_cut)


def _add_service(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """`flashgate up` mixes the lines of three processes."""
    return {"service": "cloud_stub", **event}


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
    """Other libraries' records without arguments and exception texts, which could quote a request."""

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, object] = {"logger": record.name, "template": str(record.msg) if record.args else ""}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            frames = traceback.extract_tb(error.__traceback__)[-4:]
            fields |= {"error": type(error).__name__, "at": [f"{frame.filename}:{frame.lineno}" for frame in frames]}
        structlog.get_logger().log(record.levelno, "foreign_log", **fields)


def _is_no_cut(record: logging.LogRecord) -> bool:
    """uvicorn reports an incomplete response; here a scenario asked for it, and `request_finished` says so."""
    return not str(record.msg).startswith("ASGI callable returned without completing")
