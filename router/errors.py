"""Every error the router raises on purpose, by whose fault it is and who mends it.

RouterError
├── ConfigError         options, files or addresses the gateway cannot start with (the operator)
├── PolicyError         a policy that does not load: every finding with file, line, column (whoever wrote it)
├── RequestError        a malformed request or one beyond a limit: names the value and the limit (the caller)
├── UnauthorizedError   missing or unknown credentials (the caller)
├── RefusedError        well-formed, but nothing may or can answer it; `reason` says why (the caller or the policy)
└── EgressDenied        a send that no permit covers: nothing left (our own bug, or an attack)

`reason` is machine-readable, lower snake case and from a closed set: borders put it into statuses and metrics.
"""

from dataclasses import dataclass


class RouterError(Exception):
    """Base of all; never raised itself."""

    reason = "internal"


class ConfigError(RouterError):
    """The gateway cannot be started as configured."""

    reason = "config_invalid"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of a file. Line and column count from 1; `remedy` says what to write instead."""

    file: str
    line: int
    column: int
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}:{self.column}: {self.message}"
        return f"{text}; {self.remedy}" if self.remedy else text


class PolicyError(RouterError):
    """A policy that does not load: all its faults, in the order of the file."""

    reason = "policy_invalid"

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        super().__init__("\n".join(map(str, findings)))
        self.findings = findings


class RequestError(RouterError):
    """The request is malformed or beyond a limit."""

    reason = "request_invalid"


class UnauthorizedError(RouterError):
    """The caller's credentials are missing or unknown."""

    reason = "unauthorized"


class RefusedError(RouterError):
    """Nothing may or can answer this request. `reason` is from a closed set."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class EgressDenied(RouterError):  # noqa: N818 - the field's word for it, and what the metric counts
    """A backend call that no permit covers. `cause` is from a closed set (router/privacy/permit.py)."""

    reason = "egress_denied"

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause
