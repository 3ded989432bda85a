"""A client that knows nothing of our code learns the service by reflection and uses it."""

import asyncio
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.integration.gateway_fakes import FakeEdge
from tests.integration.gateway_rig import rig


def ask_by_reflection(address: str) -> tuple[list[str], str, str]:
    """Services, the text of one answer, and the lane's name."""
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        service = pool.FindServiceByName("flashgate.v1.GatewayService")
        generate = service.FindMethodByName("Generate")
        call: Any = channel.unary_stream(
            f"/{service.full_name}/{generate.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(generate.output_type).FromString,
        )
        request: Any = GetMessageClass(generate.input_type)()
        request.messages.add(role="user", content="hello")
        request.privacy_tags.append("phi")
        events = list(call(request, timeout=10))
        lane = events[0].decision.DESCRIPTOR.fields_by_name["lane"].enum_type.values_by_number[events[0].decision.lane]
        text = "".join(event.delta.text for event in events if event.HasField("delta"))
        return sorted(database.get_services()), text, lane.name


async def test_generic_client_asks_and_is_answered() -> None:
    async with FakeEdge() as edge, rig(edge=edge.address) as running:
        services, text, lane = await asyncio.to_thread(ask_by_reflection, running.grpc_address)
    assert services == [
        "flashgate.v1.GatewayService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    ]
    assert (text, lane) == ("Hello world", "LANE_EDGE")
