"""Loads a policy: reads, checks everything that can be checked before a request comes, reports all faults at once."""

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from router.errors import Finding, PolicyError
from router.policy import document
from router.policy.cases import CaseResult, run_cases
from router.policy.condition import Condition
from router.policy.document import Document
from router.policy.findings import semantic_findings, validate
from router.policy.policy import Choice, Policy, Rule
from router.policy.schema import PolicyModel
from router.privacy.floor import PrivacyRules
from router.privacy.reach import Reach
from router.privacy.tags import TagRegistry
from router.signals.predict import Bounds

# How the built-in policy is named where a file would be.
BUILT_IN_SOURCE: Final = "built-in"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy and how its own cases went."""

    policy: Policy
    cases: tuple[CaseResult, ...]


def load_file(path: Path) -> Policy:
    """A policy whose cases all pass. Raises: PolicyError."""
    return parse(_read(path), str(path))


def load_built_in() -> Policy:
    """The policy of a gateway that was given none."""
    return parse(resources.files("router.policy").joinpath("default.yaml").read_bytes(), BUILT_IN_SOURCE)


def parse(raw: bytes, source: str) -> Policy:
    """A policy from a file's bytes, whose cases all pass. Raises: PolicyError."""
    loaded, doc = _parse(raw, source)
    findings = [
        doc.finding(("tests", case.index), f"test {case.name!r} fails: {'; '.join(case.differences)}")
        for case in loaded.cases
        if not case.has_passed
    ]
    if findings:
        raise PolicyError(tuple(findings))
    return loaded.policy


def load_with_cases(path: Path) -> Loaded:
    """A policy whatever its cases say. Raises: PolicyError."""
    return _parse(_read(path), str(path))[0]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            # One byte more than allowed is enough to be refused for the size.
            return file.read(document.MAX_BYTES + 1)
    except OSError as exc:
        raise PolicyError((Finding(str(path), 1, 1, f"cannot be read: {exc.strerror}"),)) from exc


def _parse(raw: bytes, source: str) -> tuple[Loaded, Document]:
    doc = document.read(raw, source)
    model, findings = validate(doc)
    findings = [*doc.findings, *findings, *semantic_findings(doc)]
    if findings or model is None:
        raise PolicyError(tuple(sorted(set(findings), key=lambda f: (f.line, f.column, f.message))))
    digest = hashlib.sha256(json.dumps(doc.value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    policy = _build(model, source, digest)
    return Loaded(policy, run_cases(policy, model.tests)), doc


def _build(model: PolicyModel, source: str, digest: str) -> Policy:
    return Policy(
        source=source,
        digest=digest,
        privacy=PrivacyRules(
            tags=TagRegistry({tag: Reach.from_label(label) for tag, label in model.tags.items()}),
            untagged=Reach.from_label(model.untagged),
        ),
        capabilities=tuple(model.capabilities),
        latency_classes={
            name: Bounds(_seconds(bounds.ttft_ms), _seconds(bounds.total_ms))
            for name, bounds in model.latency_classes.items()
        },
        rules=tuple(Rule(rule.name, Condition(rule.when), Choice(rule.prefer, rule.reason)) for rule in model.rules),
        default=Choice(model.default.prefer, model.default.reason),
    )


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
