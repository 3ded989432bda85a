"""Every error the router raises on purpose, by whose fault it is and who mends it.

RouterError
├── ConfigError         options, files or addresses the gateway cannot start with (the operator)
├── PolicyError         a policy that does not load: every finding with file, line, column (whoever wrote it)
├── RequestError        a malformed request or one beyond a limit: names the value and the limit (the caller)
├── UnauthorizedError   missing or unknown credentials (the caller)
├── RefusedError        well-formed, but nothing may or can answer it; `reason` says why (the caller or the policy)
└── EgressDenied        a send that no permit covers: nothing left (our own bug, or an attack)
"""


class RouterError(Exception):
    """Base of all; never raised itself."""


class ConfigError(RouterError):
    """The gateway cannot be started as configured."""


class PolicyError(RouterError):
    """A policy that does not load."""


class RequestError(RouterError):
    """The request is malformed or beyond a limit."""


class UnauthorizedError(RouterError):
    """The caller's credentials are missing or unknown."""


class RefusedError(RouterError):
    """Nothing may or can answer this request. `reason` is from a closed set."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class EgressDenied(RouterError):  # noqa: N818 - the field's word for it, and what the metric counts
    """A backend call that no permit covers. `cause` is from a closed set."""

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause
