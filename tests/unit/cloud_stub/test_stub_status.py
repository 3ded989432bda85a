"""One status in both protocols' words."""

import grpc
import pytest

from cloud_stub.status import Status


@pytest.mark.parametrize("text", ["", "OK", "ok", "200", "399", "600", "-1", "five", "٥٠٣", "UNAVAILABLE 503"])
def test_what_is_no_failure_is_refused_with_the_value(text: str) -> None:
    with pytest.raises(ValueError, match=r"HTTP status"):
        Status.parse(text)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_failing_grpc_code_has_an_http_status(code: grpc.StatusCode) -> None:
    assert Status.parse(code.name).grpc is code
    assert 400 <= Status.parse(code.name.lower()).http <= 599


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (401, grpc.StatusCode.UNAUTHENTICATED),
        (418, grpc.StatusCode.FAILED_PRECONDITION),
        (429, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (500, grpc.StatusCode.INTERNAL),
        (502, grpc.StatusCode.UNAVAILABLE),
        (529, grpc.StatusCode.INTERNAL),
    ],
)
def test_an_http_status_stays_itself_over_http(number: int, code: grpc.StatusCode) -> None:
    assert Status.parse(str(number)) == Status(code, number)


@pytest.mark.parametrize(
    "name", ["UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNAVAILABLE"]
)
def test_a_name_and_its_number_mean_the_same(name: str) -> None:
    status = Status.parse(name)
    assert Status.parse(str(status.http)) == status
