"""Log lines: JSON on stderr, our own events and other libraries' alike. Never prompts or answers."""

import logging
import sys
import traceback

import grpc
import structlog


def configure() -> None:
    """Send every log line of this process to stderr as one JSON object."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    logging.captureWarnings(capture=True)
    logging.basicConfig(handlers=[_ForeignHandler()], level=logging.WARNING, force=True)


def error_fields(error: BaseException) -> dict[str, object]:
    """What may be said of an unforeseen error: its kind and places. Its text might quote a request."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return {"error": type(error).__name__, "at": [f"{frame.filename}:{frame.lineno}" for frame in frames]}


class _ForeignHandler(logging.Handler):
    """Other libraries' records, without their arguments and their errors' texts."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and isinstance(record.exc_info[1], grpc.aio.InternalError):
            return  # gRPC could not write to a caller who left, which `request_ended` says already
        fields: dict[str, object] = {"logger": record.name, "template": str(record.msg) if record.args else ""}
        if record.exc_info and record.exc_info[1] is not None:
            fields |= error_fields(record.exc_info[1])
        structlog.get_logger().log(record.levelno, "foreign_log", **fields)
