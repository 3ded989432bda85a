"""Every error the cloud stub raises on purpose, by whose fault it is.

StubError
├── StartError      cannot start: a bad option, a port in use, a record that cannot be opened (the operator)
├── RequestError    a request that no cloud would serve: names the field and its range (the caller)
├── RecordError     a request that could not be recorded, and so is not answered (the operator: disk)
├── InjectedError   the failure that a scenario asked for; carries its status (nobody: it is meant)
├── CutError        the scenario breaks the stream here (nobody: it is meant)
└── StoppingError   the stub is going away while a request still hangs (the caller, later)
"""

from cloud_stub.status import Status


class StubError(Exception):
    """Base of all; never raised itself."""


class StartError(StubError):
    """The stub cannot start as asked."""


class RequestError(StubError):
    """The request is malformed or asks for what this stub does not have."""


class RecordError(StubError):
    """The record could not be written; the request must not be answered."""


class InjectedError(StubError):
    """A scenario's failure before the first token."""

    def __init__(self, status: Status) -> None:
        super().__init__(f"this failure was asked for: {status.grpc.name}, HTTP {status.http}")
        self.status = status


class CutError(StubError):
    """A scenario's break in the stream."""


class StoppingError(StubError):
    """The stub is shutting down."""
