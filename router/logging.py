"""Log lines: JSON on stderr, one event per line, never with content.

Our own events go through structlog and carry only what the code names. Lines of other libraries go through
`_ForeignHandler`, which keeps the template and drops the arguments: they could quote a request.
"""

import logging
import sys
import traceback
from typing import TextIO

import structlog

Logger = structlog.typing.FilteringBoundLogger


def configure(stream: TextIO | None = None) -> Logger:
    """Set up the process's logging once; returns the logger to hand down."""
    output = sys.stderr if stream is None else stream
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=output),
        cache_logger_on_first_use=False,
    )
    logger: Logger = structlog.get_logger()
    root = logging.getLogger()
    root.handlers = [_ForeignHandler(logger)]
    root.setLevel(logging.WARNING)
    # httpx2 logs each request's URL at INFO; grpc logs failures of handlers that we log ourselves.
    logging.captureWarnings(True)
    return logger


def failure_fields(error: BaseException) -> dict[str, object]:
    """What may be logged of an unexpected error: its type and where it was raised, not its message."""
    frames = traceback.extract_tb(error.__traceback__)
    return {"error": type(error).__name__, "at": [f"{frame.filename}:{frame.lineno}" for frame in frames[-4:]]}


class _ForeignHandler(logging.Handler):
    """Passes other libraries' records on without their arguments and exception messages."""

    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, object] = {"logger": record.name, "at": f"{record.pathname}:{record.lineno}"}
        if record.exc_info is not None and record.exc_info[1] is not None:
            fields |= failure_fields(record.exc_info[1])
        template = record.msg if isinstance(record.msg, str) and record.args else "foreign_log"
        self._logger.log(record.levelno, "foreign_log", template=template, **fields)
