"""Log lines: JSON on stderr, one event per line, never with content.

Our own events go through structlog and carry only what the code names. Lines of other libraries go through
`_ForeignHandler`, which keeps the template and drops the arguments: they could quote a request.
"""

import contextlib
import io
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import TextIO, cast

import structlog

Logger = structlog.typing.FilteringBoundLogger


def logger_to(stream: TextIO, service: str = "gateway") -> Logger:
    """A logger that writes JSON lines to `stream` and changes nothing in the process.

    Each names its `service`: `flashgate up` mixes the lines of several.
    """
    logger: Logger = structlog.wrap_logger(
        structlog.WriteLogger(cast("TextIO", _Steadfast(stream))),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        service=service,
    )
    return logger


def configure(service: str = "gateway") -> Logger:
    """Set up the process's logging, once; returns the logger to hand down."""
    logger = logger_to(sys.stderr, service)
    root = logging.getLogger()
    root.handlers = [_ForeignHandler(logger)]
    # httpx2 logs each request's URL at INFO.
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    return logger


def failure_fields(error: BaseException) -> dict[str, object]:
    """What may be logged of an unexpected error: its type and where it was raised, not its message."""
    frames = traceback.extract_tb(error.__traceback__)
    return {"error": type(error).__name__, "at": [f"{frame.filename}:{frame.lineno}" for frame in frames[-4:]]}


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
    """Passes other libraries' records on without their arguments and exception messages."""

    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, object] = {"logger": record.name, "at": f"{record.pathname}:{record.lineno}"}
        if record.exc_info is not None and record.exc_info[1] is not None:
            fields |= failure_fields(record.exc_info[1])
        # A message without arguments may have been formatted by its writer.
        template = record.msg if isinstance(record.msg, str) and record.args else ""
        self._logger.log(record.levelno, "foreign_log", template=template, **fields)
