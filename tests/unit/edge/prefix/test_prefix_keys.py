"""Names of prefixes: the same for the same beginning of the same tenant, and for nothing else."""

from itertools import product

from edge.prefix.keys import NAME_BYTES, SCOPE_BYTES, PrefixKeys

KEYS = PrefixKeys(bytes(range(32)))
IDS = [5, 0, 248_319, 5, 7, 7]


def test_each_tenant_has_a_scope_of_its_own_and_the_empty_one_too() -> None:
    scopes = [KEYS.scope(tenant) for tenant in ("", "a", "b", "ab", "a ")]
    assert len(set(scopes)) == 5
    assert {len(scope) for scope in scopes} == {SCOPE_BYTES}


def test_names_of_all_lengths_are_those_of_the_beginnings_alone() -> None:
    scope = KEYS.scope("a")
    names = list(KEYS.names(scope, IDS, [0, 1, 4, 6]))
    assert names == [KEYS.name(scope, IDS[:length]) for length in (0, 1, 4, 6)]
    assert {len(name) for name in names} == {NAME_BYTES}


def test_no_two_prefixes_share_a_name() -> None:
    prompts = [ids for size in range(4) for ids in product((0, 1, 256, 65_536), repeat=size)]
    names = {KEYS.name(KEYS.scope(tenant), ids) for tenant in ("", "a") for ids in prompts}
    assert len(names) == 2 * len(prompts)


def test_another_identity_gives_other_names_to_the_same_scopes() -> None:
    others = PrefixKeys(bytes(range(32)), b"another model")
    assert others.scope("a") == KEYS.scope("a")
    assert others.name(KEYS.scope("a"), IDS) != KEYS.name(KEYS.scope("a"), IDS)
    assert others.seal(b"x") == KEYS.seal(b"x")


def test_another_secret_gives_other_names() -> None:
    others = PrefixKeys(bytes(32))
    assert others.scope("a") != KEYS.scope("a")
    assert others.name(KEYS.scope("a"), IDS) != KEYS.name(KEYS.scope("a"), IDS)
    assert others.seal(b"x") != KEYS.seal(b"x")
