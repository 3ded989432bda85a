"""Tries a condition on an ordinary request, so that one that can never have a value is found when it is loaded."""

from functools import cache

from router.policy.condition import Condition, Scene
from router.policy.facts import Facts, LaneFacts
from router.privacy.floor import PrivacyRules, floor_of
from router.privacy.reach import Reach
from router.request import BackendState, GenerationRequest, Message
from router.signals.predict import Bounds, Prediction


def failure_on_sample(condition: Condition) -> str | None:
    """Why the condition has no value there; None if it has one."""
    outcome = condition.evaluate(_scene())
    return outcome if isinstance(outcome, str) else None


@cache
def _scene() -> Scene:
    request = GenerationRequest(messages=(Message("user", "Why is the sky blue?"),))
    prediction = Prediction(ttft_s=0.5, total_s=10.0)
    return Scene(
        Facts(
            request=request,
            num_messages=1,
            prompt_tokens=5,
            max_tokens=256,
            bounds=Bounds(),
            floor=floor_of(request, PrivacyRules()),
            edge=LaneFacts(BackendState("edge", "edge", Reach.DEVICE, available=True), prediction, is_in_time=True),
            cloud=LaneFacts(BackendState("cloud", "cloud", Reach.CLOUD, available=True), prediction, is_in_time=True),
        )
    )
