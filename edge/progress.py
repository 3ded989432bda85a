"""How far a long command is, for whoever watches a terminal."""

from typing import Never

from tqdm import tqdm


def byte_progress(verb: str, total: int, done: int = 0) -> "tqdm[Never]":
    """A bar on stderr, to be used as a context. Where stderr is no terminal nothing is shown: logs are not redrawn."""
    return tqdm(desc=verb, total=total, initial=done, unit="B", unit_scale=True, disable=None)


def count_progress(verb: str, total: int, unit: str) -> "tqdm[Never]":
    """The same in things of one kind."""
    return tqdm(desc=verb, total=total, unit=f" {unit}", disable=None, leave=False)
