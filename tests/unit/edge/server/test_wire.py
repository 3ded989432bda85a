"""What the messages say of deviations: everything where something may deviate, else that nothing does."""

import pytest
from flashgate.v1 import common_pb2

from edge.deviation import NOT_COUNTED, Deviation, RoutingCounts
from edge.server import wire
from edge.server.pipe import Worked
from tests.unit.edge.server.conftest import STATUS


@pytest.mark.parametrize(
    ("deviation", "counts", "expected"),
    [
        (None, NOT_COUNTED, None),
        (
            Deviation(10, 4),
            RoutingCounts(6, 0, 4.5),
            common_pb2.Deviations(
                experts_per_token=4, own_experts_per_token=10, chosen_experts=24, router_weight_kept=0.75
            ),
        ),
        (
            Deviation(10, 10, 0.5),
            NOT_COUNTED,
            common_pb2.Deviations(
                experts_per_token=10, own_experts_per_token=10, substitute=0.5, router_weight_kept=1.0
            ),
        ),
    ],
)
def test_deviations_are_unset_where_nothing_may_deviate(
    deviation: Deviation | None, counts: RoutingCounts, expected: common_pb2.Deviations | None
) -> None:
    assert wire.deviations(deviation, counts) == expected


def test_an_answer_tells_its_own_and_a_status_all() -> None:
    worked = Worked(routings=8, substituted=3, weight_kept=7.0)
    answer = wire.finished(
        "stop", prompt_tokens=1, completion_tokens=2, queue_s=0, ttft_s=0, total_s=0, worked=worked,
        deviation=STATUS.deviation,
    )  # fmt: skip
    told = answer.finished.deviations
    assert (told.chosen_experts, told.substituted_experts, told.router_weight_kept) == (8 * 13, 3, 0.875)
    response = wire.status_response(STATUS)
    assert response.deviations == wire.deviations(STATUS.deviation, STATUS.routing)
    assert response.weight_bits == 4.5
