"""Which addresses count as this device: the reach of a lane hangs on it."""

import pytest

from router.backends.edge_grpc import EdgeGrpcBackend
from router.backends.grpc_channel import is_loopback, target
from router.privacy.permit import PermitOffice
from router.privacy.reach import Reach


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1:50051",
        "192.168.1.2:50051",
        "edge.example:50051",
        "localhost.example:50051",
        "127.0.0.1.example:50051",
        "127.0.0.1:1,10.0.0.1:2",
        "ipv4:10.0.0.1:1",
        "dns://8.8.8.8/localhost:1",
        "0.0.0.0:1",
        "[fe80::1]:1",
        "2130706433:1",
        # gRPC dials this as one address, not as ::1 with a port.
        "::1:5005",
        "]127.0.0.1[:1",
        ":50051",
        "",
    ],
)
def test_address_that_may_lead_elsewhere_is_not_this_device(address: str) -> None:
    assert not is_loopback(address)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/run/edge.sock"])
def test_loopback_is_this_device(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize(
    ("address", "dialled"),
    [
        ("localhost:50051", "127.0.0.1:50051"),
        ("[::1]:50051", "[::1]:50051"),
        ("unix:localhost:1", "unix:localhost:1"),
        ("localhost.example:1", "localhost.example:1"),
    ],
)
def test_localhost_is_not_looked_up(address: str, dialled: str) -> None:
    assert target(address) == dialled


@pytest.mark.parametrize(("address", "reach"), [("127.0.0.1:1", Reach.DEVICE), ("192.0.2.1:1", Reach.FLEET)])
async def test_edge_on_another_machine_is_fleet(address: str, reach: Reach) -> None:
    backend = EdgeGrpcBackend("edge", address, "", PermitOffice(), lambda _: None)
    assert backend.reach is backend.state().reach is reach
    await backend.close()
