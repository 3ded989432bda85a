"""The gate is the only way out: nothing in `router` opens a connection to a backend but `router/backends`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import router

ROOT = Path(router.__file__).parent
# Modules that can open connections, and names that do.
CLIENT_MODULES = frozenset(
    {
        "httpx",
        "httpx2",
        "requests",
        "urllib3",
        "aiohttp",
        "http.client",
        "urllib.request",
        "openai",
        "websockets",
        "smtplib",
        "ftplib",
        "telnetlib",
    }
)
CLIENT_CALLS = frozenset(
    {
        "insecure_channel",
        "secure_channel",
        "create_connection",
        "open_connection",
        "open_unix_connection",
        "sock_connect",
        "connect",
        "connect_ex",
        "sendto",
        "urlopen",
        "AsyncClient",
        "HTTPConnection",
        "HTTPSConnection",
    }
)
BACKEND_CLASSES = frozenset(
    {
        "router.backends.edge_grpc",
        "router.backends.cloud_grpc",
        "router.backends.cloud_openai",
        "router.backends.grpc_channel",
        "router.backends.grpc_wire",
    }
)
# Clients of the gateway itself, in processes of their own, and the one place that puts the parts together.
CLIENTS_OF_THE_GATEWAY = frozenset({"gateway/ask_client.py", "up/probe.py"})
ASSEMBLY = "gateway/process.py"


def outside_backends() -> list[Path]:
    paths = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] != "backends"]
    assert len(paths) > 20
    return paths


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def called(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            match node.func:
                case ast.Attribute(attr=name) | ast.Name(id=name):
                    yield name, node.lineno


def violations(source: str, name: str) -> list[str]:
    tree = ast.parse(source)
    found = [f"{name}: imports {module}" for module in imported(tree) if module in CLIENT_MODULES]
    if name != ASSEMBLY:
        found += [f"{name}: imports {module}" for module in imported(tree) if module in BACKEND_CLASSES]
    if name not in CLIENTS_OF_THE_GATEWAY:
        found += [f"{name}:{line}: calls {call}" for call, line in called(tree) if call in CLIENT_CALLS]
    if name not in CLIENTS_OF_THE_GATEWAY:
        # Stubs of the two services behind the gateway.
        found += [f"{name}: imports {m}" for m in imported(tree) if m.endswith(("edge_pb2_grpc", "cloud_pb2_grpc"))]
    return found


@pytest.mark.parametrize("path", outside_backends(), ids=lambda path: str(path.relative_to(ROOT)))
def test_opens_no_connection_of_its_own(path: Path) -> None:
    assert violations(path.read_text(), str(path.relative_to(ROOT))) == []


def test_only_attempts_ask_the_gate_and_only_the_gate_sends() -> None:
    """`.send(` on a backend or the gate: once in each of the two places."""
    senders = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "send"
        and isinstance(node.func.value, ast.Name | ast.Attribute)
        and ast.unparse(node.func.value).rpartition(".")[2] in ("backend", "gate", "_gate")
    }
    assert senders == {"backends/gate.py", "resilience/attempts.py"}


def test_only_the_gate_mints_and_only_clients_redeem() -> None:
    calls = {
        (name, str(path.relative_to(ROOT)))
        for path in ROOT.rglob("*.py")
        for name, _ in called(ast.parse(path.read_text()))
        if name in ("mint", "redeem")
    }
    assert calls == {
        ("mint", "backends/gate.py"),
        ("redeem", "backends/edge_grpc.py"),
        ("redeem", "backends/cloud_grpc.py"),
        ("redeem", "backends/cloud_openai.py"),
    }


@pytest.mark.parametrize(
    "source",
    [
        "import httpx2",
        "from urllib.request import urlopen",
        "import grpc\ngrpc.aio.insecure_channel('x')",
        "from router.backends.cloud_grpc import CloudGrpcBackend",
        "from router.backends import cloud_grpc",
        "from flashgate.v1 import cloud_pb2_grpc",
        "import asyncio\nasyncio.open_connection('x', 1)",
    ],
)
def test_the_check_itself_sees_ways_out(source: str) -> None:
    assert violations(source, "gateway/new.py")
