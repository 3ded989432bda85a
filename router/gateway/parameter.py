"""The error of one request parameter; both protocols name it to the caller."""

from router.errors import RequestError


class ParameterError(RequestError):
    """A parameter that is missing, of the wrong kind, out of range or not supported.

    `param` is its path in the request, None for the request as a whole. The text never repeats a value of the
    caller's, which could be content.
    """

    def __init__(self, param: str | None, message: str, code: str = "invalid_value") -> None:
        super().__init__(message if param is None else f"{param}: {message}")
        self.param = param
        self.code = code
