"""Which addresses count as this device: the reach of a lane hangs on it."""

import grpc
import pytest
from flashgate.v1 import edge_pb2, edge_pb2_grpc

from router.backends.edge_grpc import EdgeGrpcBackend
from router.backends.failure import Cause
from router.backends.grpc_channel import backend_error, is_loopback, open_channel, target
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


async def test_a_message_that_the_servers_library_refuses_for_its_size_is_a_prompt_too_long() -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 1000)])
    deaf = edge_pb2_grpc.EdgeServiceServicer()  # type: ignore[abstract] # never asked
    edge_pb2_grpc.add_EdgeServiceServicer_to_server(deaf, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        call = edge_pb2_grpc.EdgeServiceStub(channel).Generate(edge_pb2.EdgeServiceGenerateRequest(text="a" * 2000))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    await server.stop(None)
    error = backend_error("edge", caught.value)
    assert (error.cause, error.retry_after_s) == (Cause.PROMPT_TOO_LONG, None)
