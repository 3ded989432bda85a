"""A cloud that speaks the OpenAI API over HTTP, at any base URL."""

import dataclasses
import json
import math
from collections.abc import AsyncGenerator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from router.backends.backend import Finished, StateObserver, TextDelta
from router.backends.failure import BackendError, Cause
from router.backends.openai_stream import CompletionStream, StreamError, error_name
from router.backends.watcher import Watcher
from router.errors import ConfigError
from router.privacy.permit import Permit, PermitOffice
from router.privacy.reach import Reach
from router.request import BackendState, GenerationRequest, Lane, Sampling

POLL_INTERVAL_S = 10.0
POLL_INTERVAL_DOWN_S = 1.0
POLL_TIMEOUT_S = 5.0
MAX_ERROR_BYTES: Final = 1 << 16
MAX_MODELS_BYTES: Final = 4 << 20

_CAUSES: Final = {
    400: Cause.REJECTED,
    413: Cause.PROMPT_TOO_LONG,
    422: Cause.REJECTED,
    401: Cause.UNAUTHORIZED,
    403: Cause.UNAUTHORIZED,
    408: Cause.TIMED_OUT,
    429: Cause.OVERLOADED,
    502: Cause.UNREACHABLE,
    503: Cause.UNREACHABLE,
    504: Cause.TIMED_OUT,
}


class ApiKey:
    """A secret that shows itself only where it is asked for by name."""

    def __init__(self, value: str) -> None:
        if not value.isascii() or not value.isprintable() or value != value.strip():
            raise ConfigError("the cloud's API key has characters that no HTTP header can carry")
        self._value = value

    def __repr__(self) -> str:
        return "ApiKey(***)"

    def header(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._value}"} if self._value else {}


class CloudOpenAiBackend:
    """One base URL. Nothing is taken from the environment, no redirect is followed, no cookie is kept."""

    lane: Lane = "cloud"
    reach = Reach.CLOUD

    def __init__(
        self,
        name: str,
        base_url: str,
        key: ApiKey,
        model: str,
        capability: str,
        office: PermitOffice,
        observe: StateObserver,
    ) -> None:
        self.name = name
        self._base_url = check_base_url(base_url)
        self._has_own_model = not model
        self._office = office
        self._observe = observe
        self._client = _client(key)
        self._watcher = Watcher(self._look)
        self._state = BackendState(
            name=name,
            lane=self.lane,
            reach=self.reach,
            available=False,
            cause="not asked yet",
            model=model,
            capability=capability,
        )

    async def start(self) -> None:
        await self._watcher.start()

    async def close(self) -> None:
        await self._watcher.close()
        await self._client.aclose()

    def state(self) -> BackendState:
        return self._state

    def payload(self, request: GenerationRequest, request_id: str) -> bytes:  # noqa: ARG002 - the protocol's
        """The JSON body. The API has no place for `request_id`."""
        body = {
            "model": self._state.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **_sampling(request.sampling, self._base_url),
        }
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()

    async def send(self, permit: Permit, payload: bytes) -> AsyncGenerator[TextDelta | Finished, None]:
        self._office.redeem(permit, self.name, payload)
        stream = CompletionStream()
        try:
            headers = {"content-type": "application/json", "accept": "text/event-stream"}
            url = f"{self._base_url}/chat/completions"
            async with self._client.stream("POST", url, content=payload, headers=headers) as response:
                await self._check(response)
                async for piece in response.aiter_raw():
                    for delta in stream.feed(piece):
                        yield delta
                    if stream.is_done:
                        break
                yield stream.end()
        except httpx2.HTTPError as exc:
            raise self._failed(_cause(exc), type(exc).__name__) from None
        except StreamError as exc:
            raise self._failed(Cause.BROKEN, str(exc)) from None

    async def _check(self, response: httpx2.Response) -> None:
        """Raises BackendError unless an event stream begins."""
        status = response.status_code
        media_type = response.headers.get("content-type", "").partition(";")[0].strip()
        if status == 200:
            if media_type != "text/event-stream":
                raise self._failed(Cause.BROKEN, "it answered with something else than an event stream")
            return
        if 300 <= status < 400:
            raise self._failed(Cause.BROKEN, f"HTTP {status}: it redirects, which is not followed")
        named = error_name(_json(await _read(response, MAX_ERROR_BYTES)))
        cause = _CAUSES.get(status, Cause.FAILED)
        if named == " (context_length_exceeded)":
            cause = Cause.PROMPT_TOO_LONG
        raise self._failed(cause, f"HTTP {status}{named}", _retry_after_s(response))

    def _failed(self, cause: Cause, detail: str, retry_after_s: float | None = None) -> BackendError:
        if cause.is_health:
            self._watcher.nudge()
        return BackendError(self.name, cause, detail, retry_after_s)

    async def _look(self) -> float:
        """Ask for the list of models: it tells whether the server is there, and a default model's name."""
        url = f"{self._base_url}/models"
        try:
            async with self._client.stream("GET", url, timeout=POLL_TIMEOUT_S) as response:
                status = response.status_code
                body = await _read(response, MAX_MODELS_BYTES) if status == 200 else b""
        except httpx2.HTTPError as exc:
            return self._update(_cause(exc), self._state.model)
        if status in (401, 403):
            return self._update(Cause.UNAUTHORIZED, self._state.model)
        if status >= 500:
            return self._update(_CAUSES.get(status, Cause.FAILED), self._state.model)
        model = _first_model(_json(body)) or self._state.model if self._has_own_model else self._state.model
        return self._update("" if model else "it names no model: set --cloud-model", model)

    def _update(self, cause: str, model: str) -> float:
        self._state = dataclasses.replace(self._state, available=not cause, cause=cause, model=model)
        self._observe(self._state)
        return POLL_INTERVAL_DOWN_S if cause else POLL_INTERVAL_S


def check_base_url(url: str) -> str:
    """Without a trailing slash. Raises ConfigError for what is no plain http(s) address."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--cloud-openai {url!r} must be a base URL such as https://api.openai.com/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError("--cloud-openai must hold no user, password, query or fragment; the key has its own variable")
    return url.rstrip("/")


def _client(key: ApiKey) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        # Compressed answers would be held back and could be bombs.
        headers={"user-agent": "flashgate", "accept-encoding": "identity", **key.header()},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        timeout=httpx2.Timeout(None, connect=5.0, write=30.0),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=32),
        follow_redirects=False,
        # Proxies, netrc and certificate paths of the environment would be ways out that no permit covers.
        trust_env=False,
    )


def _sampling(values: Sampling, base_url: str) -> dict[str, object]:
    """Only what is set. `top_k` and `min_p` are extensions: a server that lacks them says so."""
    # OpenAI's own newer models refuse the old name; most compatible servers know only that one.
    is_openai = (urlsplit(base_url).hostname or "").endswith((".openai.com", ".openai.azure.com"))
    named = {
        "max_completion_tokens" if is_openai else "max_tokens": values.max_tokens,
        "temperature": values.temperature,
        "top_p": values.top_p,
        "top_k": values.top_k,
        "min_p": values.min_p,
        "seed": values.seed,
        "stop": list(values.stop) or None,
    }
    return {key: value for key, value in named.items() if value is not None}


def _cause(error: httpx2.HTTPError) -> Cause:
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return Cause.UNREACHABLE
    return Cause.TIMED_OUT if isinstance(error, httpx2.TimeoutException) else Cause.BROKEN


async def _read(response: httpx2.Response, max_bytes: int) -> bytes:
    """The body, or its beginning: what is longer is no JSON that we could use."""
    body = b""
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > max_bytes:
            return b""
    return body


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _first_model(body: Any) -> str:
    models = body.get("data") if isinstance(body, dict) else None
    first = models[0] if isinstance(models, list) and models else None
    name = first.get("id") if isinstance(first, dict) else None
    return name if isinstance(name, str) and len(name) <= 256 else ""


def _retry_after_s(response: httpx2.Response) -> float | None:
    """Seconds of Retry-After; its other form, a date, is not worth a clock here."""
    try:
        seconds = float(response.headers.get("retry-after", "nan"))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and 0 <= seconds <= 3600 else None
