"""Tags and reaches."""

import pytest

from router.privacy.reach import Reach
from router.privacy.tags import BUILT_IN, TagRegistry


def test_an_unknown_reach_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown reach 'moon'; known are device, fleet, cloud_masked, cloud"):
        Reach.from_label("moon")


@pytest.mark.parametrize("reach", Reach)
def test_a_reach_is_found_by_its_label(reach: Reach) -> None:
    assert Reach.from_label(reach.label) is reach


@pytest.mark.parametrize("tag", ["", " ", "phy", "ph i", "рublic", "PUBLİC", "publi\u0441", "public\0", "public,phi"])
def test_an_unknown_tag_has_no_reach(tag: str) -> None:
    assert TagRegistry().reach_of(tag) is None


@pytest.mark.parametrize("tag", ["phi", "PHI", " Phi ", "\tphi\n"])
def test_tags_ignore_case_and_surrounding_space(tag: str) -> None:
    assert TagRegistry().reach_of(tag) is Reach.DEVICE


def test_a_policy_cannot_loosen_a_built_in_tag() -> None:
    with pytest.raises(ValueError, match="tag phi is built in as device; fleet would loosen it"):
        TagRegistry({"phi": Reach.FLEET})


def test_a_policy_adds_tags_and_tightens_built_in_ones() -> None:
    registry = TagRegistry({"public": Reach.FLEET, "project-x": Reach.CLOUD_MASKED})
    assert registry.reaches == {**BUILT_IN, "public": Reach.FLEET, "project-x": Reach.CLOUD_MASKED}


def test_a_policy_may_repeat_what_is_built_in_and_add_open_tags() -> None:
    registry = TagRegistry({"phi": Reach.DEVICE, "open": Reach.CLOUD})
    assert (registry.reach_of("phi"), registry.reach_of("open")) == (Reach.DEVICE, Reach.CLOUD)


def test_what_is_sensitive_stays_on_the_device() -> None:
    assert {tag for tag, reach in BUILT_IN.items() if reach > Reach.DEVICE} == {"public", "internal"}
