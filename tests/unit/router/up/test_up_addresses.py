"""The ports of `flashgate up`."""

import socket

import pytest

from router.errors import ConfigError
from router.up.addresses import Ports, check_free

ANY = Ports(grpc=0, http=0, edge=0, edge_metrics=0, cloud=0, cloud_metrics=0)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range_names_its_option(port: int) -> None:
    with pytest.raises(ConfigError, match=f"--edge-metrics-port is {port}"):
        Ports(edge_metrics=port)


def test_every_port_in_use_is_named_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        a, b = one.getsockname()[1], two.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            check_free(Ports(grpc=0, http=a, edge=0, edge_metrics=0, cloud=b, cloud_metrics=0))
    message = str(caught.value)
    assert f"--http-port {a}" in message
    assert f"--cloud-port {b}" in message
    assert "--edge-port" not in message
    assert "ss -ltnp" in message


def test_one_port_for_two_servers_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    with pytest.raises(ConfigError, match=f"twice: --grpc-port {free}, --cloud-port {free}"):
        check_free(Ports(grpc=free, http=0, edge=0, edge_metrics=0, cloud=free, cloud_metrics=0))


def test_any_free_port_is_always_free() -> None:
    check_free(ANY)


def test_ready_lines_fix_the_ports() -> None:
    ports = ANY.with_ready(edge="127.0.0.1:1234", http="[::1]:80")
    assert (ports.edge, ports.http, ports.grpc) == (1234, 80, 0)
