"""The shape of a policy file, version 1. What the words mean is written in default.yaml."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from router.policy.policy import Preference
from router.request import Lane, LatencyClass

ReachLabel = Literal["device", "fleet", "cloud_masked", "cloud"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
# Reasons are metric labels and stand beside the built-in ones, which are all of this form.
Reason = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
# Limits of a week, as for requests.
Milliseconds = Annotated[int, Field(gt=0, le=7 * 24 * 3600 * 1000)]
Count = Annotated[int, Field(ge=0, le=1 << 32)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]

# What a word in a test says about a lane. "slow" takes seconds for the first token of the shortest prompt.
PRESETS: dict[str, dict[str, object]] = {
    "up": {"prefill_tokens_per_second": 1000.0, "decode_tokens_per_second": 20.0},
    "slow": {"prefill_tokens_per_second": 2.0, "decode_tokens_per_second": 0.1},
    "unmeasured": {},
    "down": {"available": False},
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class LatencyClassModel(_Strict):
    """Bounds of a latency class."""

    ttft_ms: Milliseconds | None = None
    total_ms: Milliseconds | None = None


class ChoiceModel(_Strict):
    """`default`."""

    prefer: Preference
    reason: Reason


class RuleModel(_Strict):
    """One of `rules`."""

    name: Name
    when: str
    prefer: Preference
    reason: Reason


class TestLatencyModel(_Strict):
    """`latency` of a test's request."""

    ttft_ms: Milliseconds | None = None
    total_ms: Milliseconds | None = None
    latency_class: LatencyClass | None = Field(default=None, alias="class")
    strict: bool = False


class TestRequestModel(_Strict):
    """`request` of a test. `prompt_tokens` stands for a prompt of that size; `text` is searched for identifiers."""

    tags: list[str] = []
    tenant: str = "default"
    text: str = ""
    prompt_tokens: Count | None = None
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    latency: TestLatencyModel = TestLatencyModel()
    min_capability: str = ""
    max_reach: ReachLabel | None = None


def _preset(value: object) -> object:
    """A word stands for a lane's whole state."""
    if isinstance(value, str):
        if value not in PRESETS:
            raise ValueError(f"must be {', '.join(PRESETS)} or a state")
        return PRESETS[value]
    return value


class LaneModel(_Strict):
    """State of a lane in a test."""

    available: bool = True
    capability: str = ""
    reach: ReachLabel | None = None
    queue_depth: Count = 0
    queue_limit: Count = 0
    running: Count = 0
    context_tokens: Count = 0
    pending_prompt_tokens: Count = 0
    steps_until_place: Count = 0
    prefill_tokens_per_second: Rate = 0.0
    prompt_base_s: Rate = 0.0
    decode_tokens_per_second: Rate = 0.0


class ExpectModel(_Strict):
    """What a test expects: of what it does not name, nothing."""

    lane: Lane | None = None
    refusal: str | None = None
    rule: str | None = None
    reason: str | None = None
    floor: ReachLabel | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "ExpectModel":
        if self == ExpectModel.model_construct():
            raise ValueError("nothing is expected; name lane, refusal, rule, reason or floor")
        if self.lane is not None and self.refusal is not None:
            raise ValueError("a request is answered by a lane or refused: name one")
        return self


class TestModel(_Strict):
    """One of `tests`."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    request: TestRequestModel = TestRequestModel()
    edge: Annotated[LaneModel, BeforeValidator(_preset)] = LaneModel.model_validate(PRESETS["up"])
    cloud: Annotated[LaneModel, BeforeValidator(_preset)] = LaneModel()
    expect: ExpectModel


class PolicyModel(_Strict):
    """The whole file."""

    version: Literal[1]
    description: str = ""
    tags: dict[Name, ReachLabel] = {}
    untagged: ReachLabel = "cloud"
    capabilities: Annotated[list[Name], Field(max_length=64)] = []
    latency_classes: dict[LatencyClass, LatencyClassModel] = {}
    rules: Annotated[list[RuleModel], Field(max_length=500)] = []
    default: ChoiceModel
    tests: Annotated[list[TestModel], Field(max_length=1000)] = []
