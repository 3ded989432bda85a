"""Reads YAML strictly, and remembers where each value stands.

Accepted is the part of YAML that has one meaning: no anchors or aliases, no type tags, one document, no key twice.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, cast

import yaml

from router.errors import Finding

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 12

# Keys and list positions that lead from the top to a value.
Path = tuple[str | int, ...]


class _Mark(Protocol):
    """A position as PyYAML keeps it: characters from the start."""

    index: int


@dataclass(frozen=True, slots=True)
class Document:
    """Values of a file; where a fault left a hole, `findings` says so. Lines and columns count from 1."""

    file: str
    text: str
    value: object
    nodes: Mapping[Path, yaml.Node]
    keys: Mapping[Path, yaml.Node]
    findings: tuple[Finding, ...]

    def finding(self, path: Path, message: str, remedy: str = "", *, at_key: bool = False) -> Finding:
        """A fault of the value at `path`, or of the nearest value around it that exists."""
        nodes = self.keys if at_key else self.nodes
        while path and path not in nodes:
            path, nodes = path[:-1], self.nodes
        at = _position(self.text, nodes[path].start_mark) if path in nodes else (1, 1)
        return Finding(self.file, *at, message, remedy)

    def place(self, path: Path, line: int, column: int) -> tuple[int, int]:
        """Where the text at `path` has its own line and column in the file, whatever style it is written in."""
        node = cast(yaml.ScalarNode, self.nodes[path])
        before = node.value.split("\n")[: line - 1]
        offset = sum(len(text) + 1 for text in before) + column - 1
        index = _source_index(self.text, node, offset)
        return _line_and_column(self.text, index)


def read(raw: bytes, file: str) -> Document:
    """Never raises for what the file holds: its faults are findings."""
    if len(raw) > MAX_BYTES:
        return _broken(file, "", Finding(file, 1, 1, f"the file has {len(raw)} bytes; at most {MAX_BYTES}"))
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as exc:
        before = raw[: exc.start].decode("utf-8")
        at = _line_and_column(before, len(before))
        return _broken(file, "", Finding(file, *at, "not UTF-8", "save the file as UTF-8"))
    try:
        findings = tuple(_forbidden(text, file))
        if findings:
            return _broken(file, text, *findings)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as exc:
        return _broken(file, text, _syntax_finding(exc, text, file))
    if root is None:
        return _broken(file, text, Finding(file, 1, 1, "the file is empty", "start with `version: 1`"))
    builder = _Builder(file, text)
    value = builder.build(root, ())
    return Document(file, text, value, builder.nodes, builder.keys, tuple(builder.findings))


@dataclass(slots=True)
class _Builder:
    """Turns nodes into values; notes where each stands."""

    file: str
    text: str
    nodes: dict[Path, yaml.Node] = field(default_factory=dict)
    keys: dict[Path, yaml.Node] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def build(self, node: yaml.Node, path: Path) -> object:
        self.nodes[path] = node
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or not isinstance(self._scalar(key_node), str):
                self._find(key_node, "a key must be a name", "put it in quotes")
            elif key in values:
                first = _position(self.text, self.keys[*path, key].start_mark)[0]
                self._find(key_node, f"the key {key} stands here again, after line {first}", "keep one of them")
            else:
                self.keys[*path, key] = key_node
                values[key] = self.build(value_node, (*path, key))
        return values

    def _scalar(self, node: yaml.Node) -> object:
        try:
            return yaml.constructor.SafeConstructor().construct_object(node)
        except (yaml.YAMLError, ValueError):
            self._find(node, "this is no value", "put a text in quotes")
            return None

    def _find(self, node: yaml.Node, message: str, remedy: str) -> None:
        self.findings.append(Finding(self.file, *_position(self.text, node.start_mark), message, remedy))


def _forbidden(text: str, file: str) -> Iterator[Finding]:
    """What YAML allows and we do not; stops where reading on could take long."""
    depth = num_documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        num_documents += isinstance(event, yaml.DocumentStartEvent)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            yield Finding(
                file, *_position(text, event.start_mark), "anchors and aliases are not allowed", "write the value out"
            )
        if getattr(event, "tag", None) is not None:
            yield Finding(
                file, *_position(text, event.start_mark), "type tags are not allowed", "write the value without `!`"
            )
        if depth > MAX_DEPTH:
            yield Finding(
                file,
                *_position(text, event.start_mark),
                f"nested deeper than {MAX_DEPTH} levels",
                "no part of a policy is that deep",
            )
            return
        if num_documents > 1:
            yield Finding(
                file, *_position(text, event.start_mark), "a second document begins", "one file holds one policy"
            )
            return


def _syntax_finding(error: yaml.YAMLError, text: str, file: str) -> Finding:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        remedy = "indent with spaces" if "'\\t'" in str(error.problem) else ""
        return Finding(file, *_position(text, error.problem_mark), str(error.problem), remedy)
    index = getattr(error, "position", 0)
    return Finding(file, *_line_and_column(text, index), "a control character", "remove it")


def _source_index(text: str, node: yaml.ScalarNode, offset: int) -> int:
    """Index in the file of a value's character: spaces, quotes and escapes may have been added between the others."""
    index = node.start_mark.index
    if node.style in ("|", ">"):
        index = text.index("\n", index) + 1
    found = index
    for char in node.value[: offset + 1].rstrip("\n"):
        if char.isspace():
            continue
        while index < node.end_mark.index and text[index] != char and text[index] in " \t\n\\\"'":
            index += 1
        found = index
        index += 1
    is_behind = offset >= len(node.value.rstrip("\n"))
    return found + 1 if is_behind else found


def _broken(file: str, text: str, *findings: Finding) -> Document:
    return Document(file, text, None, {}, {}, findings)


def _position(text: str, mark: _Mark | None) -> tuple[int, int]:
    # The mark's own line counts characters as line ends that editors do not, such as U+2028.
    return (1, 1) if mark is None else _line_and_column(text, mark.index)


def _line_and_column(text: str, index: int) -> tuple[int, int]:
    return text.count("\n", 0, index) + 1, index - (text.rfind("\n", 0, index) + 1) + 1
