"""Finds the faults of a policy file that is well-formed YAML: its shape, its names, its conditions."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from router.errors import Finding
from router.policy.condition import Condition, ConditionError, Fault
from router.policy.document import Document, Path
from router.policy.facts import VARIABLES
from router.policy.lint import unknown_names
from router.policy.policy import DEFAULT_RULE
from router.policy.probe import failure_on_sample
from router.policy.schema import PolicyModel
from router.privacy.reach import Reach
from router.privacy.tags import BUILT_IN

# The schema library's own words, where people who write YAML would not know them.
_MESSAGES: Final = {
    "model_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "list_type": "must be a list",
    "string_type": "must be a text; put it in quotes",
    "string_pattern_mismatch": "must be at most 64 lower-case letters, digits and _ (in names also . and -)",
}


def validate(doc: Document) -> tuple[PolicyModel | None, list[Finding]]:
    """The file in its shape, or what is wrong with its shape."""
    if doc.value is None and doc.findings:
        return None, []
    try:
        return PolicyModel.model_validate(doc.value), []
    except ValidationError as exc:
        return None, [_shape_finding(doc, error) for error in exc.errors(include_url=False)]


def _shape_finding(doc: Document, error: ErrorDetails) -> Finding:
    path, kind = error["loc"], error["type"]
    name = path[-1] if path else "the file"
    if kind == "missing":
        return doc.finding(path, f"{name} is missing")
    if kind == "extra_forbidden":
        return doc.finding(path, f"unknown key {name}", _known_keys(path), at_key=True)
    message = _MESSAGES.get(kind) or _lower(error["msg"].removeprefix("Value error, ")).replace("input should", "must")
    is_key = path[-1:] == ("[key]",)
    where = ".".join(str(part) for part in (path[:-1] if is_key else path))
    return doc.finding(path[:-1] if is_key else path, f"{where or name}: {message}", at_key=is_key)


def _known_keys(path: tuple[str | int, ...]) -> str:
    """The keys allowed at `path`, from the schema."""
    schema: Mapping[str, Any] = PolicyModel.model_json_schema(by_alias=True)
    definitions, here = schema["$defs"], schema
    for part in path[:-1]:
        here = here["items"] if isinstance(part, int) else _value_schema(here, part)
        here = definitions[here["$ref"].rsplit("/")[-1]] if "$ref" in here else here
    return f"known are {', '.join(here['properties'])}"


def _value_schema(here: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value: Mapping[str, Any] = here["properties"][key] if "properties" in here else here["additionalProperties"]
    return value


def semantic_findings(doc: Document) -> Iterator[Finding]:
    """What the shape cannot say; looks at whatever has the right shape, so that all faults come at once."""
    top = _mapping(doc.value)
    tags = _mapping(top.get("tags"))
    capabilities = [name for name in _items(top.get("capabilities")) if isinstance(name, str)]
    yield from _tag_findings(doc, tags)
    yield from _repeated(doc, "capabilities", [(("capabilities", i), name) for i, name in enumerate(capabilities)])
    rules = [(i, rule) for i, rule in enumerate(_items(top.get("rules"))) if isinstance(rule, dict)]
    names: list[tuple[Path, str]] = [
        (("rules", i, "name"), rule["name"]) for i, rule in rules if isinstance(rule.get("name"), str)
    ]
    yield from _repeated(doc, "rules", names)
    for path, name in names:
        if name == DEFAULT_RULE:
            yield doc.finding(path, f"a rule cannot be named {DEFAULT_RULE}", "the section `default` has that name")
    for index, rule in rules:
        if isinstance(rule.get("when"), str):
            yield from _condition_findings(
                doc, ("rules", index, "when"), rule["when"], {*BUILT_IN, *tags}, capabilities
            )


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _items(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _tag_findings(doc: Document, tags: Mapping[str, object]) -> Iterator[Finding]:
    labels = {reach.label: reach for reach in Reach}
    for tag, label in tags.items():
        if isinstance(label, str) and label in labels and labels[label] > BUILT_IN.get(tag, Reach.CLOUD):
            built_in = BUILT_IN[tag].label
            yield doc.finding(
                ("tags", tag),
                f"tag {tag} is built in as {built_in}; {label} would loosen it",
                f"write {built_in} or stricter, or another tag",
            )


def _repeated(doc: Document, section: str, names: list[tuple[Path, str]]) -> Iterator[Finding]:
    seen: set[str] = set()
    for path, name in names:
        if name in seen:
            yield doc.finding(path, f"{name} stands twice in {section}", "each name must be its own")
        seen.add(name)


def _condition_findings(
    doc: Document, path: Path, source: str, tags: set[str], capabilities: list[str]
) -> Iterator[Finding]:
    faults: list[Fault] = [*unknown_names(source, tags, capabilities)]
    try:
        failure = failure_on_sample(Condition(source))
    except ConditionError as exc:
        faults += exc.faults
    else:
        if failure is not None:
            faults.append(Fault(1, 1, f"the condition has no value for an ordinary request: {failure}"))
    for fault in faults:
        line, column = doc.place(path, fault.line, fault.column)
        yield Finding(doc.file, line, column, f"when: {fault.message}", _remedy(fault.message))


def _remedy(message: str) -> str:
    if message.startswith("undeclared reference"):
        names = [variable.name for variable in VARIABLES]
        near = get_close_matches(message.partition("'")[2].partition("'")[0], names, n=3)
        return f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}"
    if "(int, double)" in message or "(double, int)" in message:
        return "counts and milliseconds are whole numbers (1), rates are not (1.0)"
    return ""


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
