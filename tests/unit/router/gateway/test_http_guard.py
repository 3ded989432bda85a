"""Which Host headers name this machine."""

import pytest

from router.gateway.http_guard import is_loopback_host


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.0.2.1",
        "10.0.0.1:80",
        "[::2]:80",
        "[",
        "localhost:x",
        "127.0.0.1:80:80",
    ],
)
def test_foreign_hosts(host: str) -> None:
    assert not is_loopback_host(host)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:8080", "127.8.9.1", "[::1]", "[::1]:8080"]
)
def test_own_hosts(host: str) -> None:
    assert is_loopback_host(host)
