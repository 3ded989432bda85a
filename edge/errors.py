"""Every error the edge node raises on purpose, by whose fault it is and who mends it.

EdgeError
├── CheckpointError    the source checkpoint: names the key, tensor or file (the person converting)
├── CalibrationError   a text to calibrate with that cannot be used: names the file and line (the person converting)
├── PackError          a packed model that is missing, truncated, altered or of another version (convert again)
├── StorageError       a read that failed while running: errno, short read, checksum (the operator: disk)
├── BudgetError        --memory below what the model needs; says the minimum (the operator)
├── PrefixDirectoryError  a directory for snapshots of prompts that is not private or not usable (the operator)
├── TraceError         a file that is no trace of expert accesses (whoever names it)
├── EvaluationError    questions, a text or a set of variants that cannot be evaluated (whoever names them)
├── RequestError       a request that cannot be served as asked: names the value and the limit (the caller)
│   └── PromptTooLongError
├── OverloadedError    the queue is full; says when to retry (the caller, later)
├── UnavailableError   the engine is loading, restarting or draining (the caller, later)
└── CancelledError     the caller went away or its deadline passed (nobody)
"""


class EdgeError(Exception):
    """Base of all; never raised itself."""


class CheckpointError(EdgeError):
    """The source checkpoint cannot be read as a supported model."""


class CalibrationError(EdgeError):
    """The text that a model is to be calibrated with cannot be used."""


class PackError(EdgeError):
    """A packed model cannot be loaded."""


class StorageError(EdgeError):
    """A read of model data failed while the model was running."""


class BudgetError(EdgeError):
    """The memory budget is below what the model needs."""


class PrefixDirectoryError(EdgeError):
    """Snapshots of prompts cannot be kept in the directory that was named."""


class TraceError(EdgeError):
    """A recorded trace cannot be read."""


class EvaluationError(EdgeError):
    """What is to be evaluated, or what it is to be measured with, cannot be used."""


class RequestError(EdgeError):
    """The request is malformed or beyond a limit of this model."""


class PromptTooLongError(RequestError):
    """The prompt does not fit the context, or is larger than a request may be."""


class OverloadedError(EdgeError):
    """The admission queue is full. `retry_after_s` is an estimate."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnavailableError(EdgeError):
    """The engine cannot take requests at the moment, or was lost during this one.

    reason: UPPER_SNAKE, for programs. retry_after_s: where waiting is known to help, how long.
    """

    def __init__(self, message: str, reason: str = "ENGINE_UNAVAILABLE", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class CancelledError(EdgeError):
    """The request was cancelled or its deadline passed."""
