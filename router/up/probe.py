"""Whether a first request can really be served: the gateway itself is asked, as a client would."""

import asyncio

import grpc
from flashgate.v1 import gateway_pb2, gateway_pb2_grpc

from router.errors import ConfigError

# The gateway looks at its lanes about every second; more than a few rounds mean that it cannot reach one.
_LIMIT_S = 30.0
_PAUSE_S = 0.1


async def until_served(address: str) -> gateway_pb2.GetStatusResponse:
    """Wait until the gateway at `address` sees every lane available; its status then. Raises ConfigError."""
    # A proxy from the environment would be asked for a loopback address.
    async with grpc.aio.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        gateway = gateway_pb2_grpc.GatewayServiceStub(channel)
        try:
            async with asyncio.timeout(_LIMIT_S):
                while True:
                    status = await gateway.GetStatus(gateway_pb2.GetStatusRequest())
                    waiting = [backend for backend in status.backends if not backend.available]
                    if not waiting:
                        return status
                    await asyncio.sleep(_PAUSE_S)
        except TimeoutError as exc:
            causes = ", ".join(f"{backend.backend}: {backend.cause}" for backend in waiting)
            raise ConfigError(f"the gateway did not see its lanes within {_LIMIT_S:g} s ({causes})") from exc
        except grpc.aio.AioRpcError as exc:
            raise ConfigError(f"the gateway at {address} did not say its status: {exc.code().name}") from exc
