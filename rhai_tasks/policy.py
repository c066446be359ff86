"""The file of `--policy`: which callers may run which scripts in which circles, and within which limits."""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rhai_tasks.current import TaskRequest
from rhai_tasks.engine.limits import MIB
from rhai_tasks.errors import ConfigurationError
from rhai_tasks.protocol import NO_TERMS, Terms, script_hash, shown, write_terms

logger = logging.getLogger(__name__)

_LISTS = ("callers", "circles", "scripts")
_LIMITS = ("timeout", "max_operations", "max_memory")


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A rule that allows tasks. `None`: of any caller, in any circle, with any script."""

    number: int  # its place in the file, from 1
    callers: re.Pattern[str] | None = None
    circles: re.Pattern[str] | None = None
    scripts: frozenset[str] | None = None  # SHA-256 in hex
    limits: Terms = NO_TERMS

    def fits(self, caller: str, circle: str) -> bool:
        """Whether the rule is about this caller in this circle."""
        return _matches(self.callers, caller) and _matches(self.circles, circle)

    def allows(self, request: TaskRequest) -> bool:
        """Whether the rule allows a task."""
        return self.fits(request.caller_id, request.circle) and (
            self.scripts is None or request.script_hash in self.scripts
        )

    def lower(self, terms: Terms) -> Terms:
        """Return a task's terms with the rule's limits where these are lower."""
        own = {name: getattr(self.limits, name) for name in _LIMITS}
        return terms._replace(
            **{name: min(limit, getattr(terms, name) or limit) for name, limit in own.items() if limit is not None}
        )


def _matches(pattern: re.Pattern[str] | None, text: str) -> bool:
    return pattern is None or pattern.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of a file. The first that allows a task decides; a task that none allows does not run."""

    rules: tuple[PolicyRule, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            ConfigurationError: The file cannot be read or used; the text says where and why.
        """
        import tomllib  # noqa: PLC0415  (most workers have no policy)

        what = f"the policy {str(path)!a}"
        try:
            content = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{what} cannot be read: {error.strerror}") from error
        except ValueError as error:  # of TOML, or of UTF-8
            raise ConfigurationError(f"{what} is not TOML: {error}") from error
        try:
            return cls(tuple(_read_rules(content)))
        except ConfigurationError as error:
            raise ConfigurationError(f"{what}: {error}") from error

    def rule_for(self, request: TaskRequest) -> PolicyRule | None:
        """Return the rule that allows a task; `None`: none does."""
        return next((rule for rule in self.rules if rule.allows(request)), None)

    def refusal_of(self, request: TaskRequest) -> str:
        """Say why no rule allows a task."""
        who = f"caller {shown(request.caller_id)}"
        if any(rule.fits(request.caller_id, request.circle) for rule in self.rules):
            return f"the worker's policy allows {who} other scripts here, not sha256:{request.script_hash}"
        return f"the worker's policy allows {who} nothing here"


def _read_rules(content: Mapping[str, Any]) -> Iterator[PolicyRule]:
    _check_names(content, {"allow"})
    rules = content.get("allow")
    if not isinstance(rules, list) or not rules:
        raise ConfigurationError("expected at least one [[allow]] table: without one, no task could run")
    for number, rule in enumerate(rules, 1):
        try:
            yield _read_rule(number, rule)
        except (ConfigurationError, ValueError) as error:
            raise ConfigurationError(f"[[allow]] number {number}: {error}") from error


def _read_rule(number: int, rule: object) -> PolicyRule:
    if not isinstance(rule, dict):
        raise ConfigurationError(f"expected a table, not {shown(rule)}")
    _check_names(rule, {*_LISTS, "limits"})
    callers, circles, scripts = (_read_texts(rule, name) for name in _LISTS)
    return PolicyRule(
        number,
        _pattern(callers),
        _pattern(circles),
        None if scripts is None else frozenset(map(script_hash, scripts)),
        _read_limits(rule.get("limits", {})),
    )


def _check_names(table: Mapping[str, object], known: set[str]) -> None:
    if unknown := table.keys() - known:
        raise ConfigurationError(f"{min(unknown)!a} is unknown: expected {', '.join(sorted(known))}")


def _read_texts(rule: Mapping[str, Any], name: str) -> list[str] | None:
    texts = rule.get(name)
    if name in rule and not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
        raise ConfigurationError(f"{name} = {shown(texts)}: expected a non-empty list of strings")
    return texts


def _pattern(texts: list[str] | None) -> re.Pattern[str] | None:
    """Make one pattern of several, in which `*` stands for any text."""
    if texts is None:
        return None
    return re.compile("|".join(map(_translate, texts)), re.DOTALL)


def _translate(text: str) -> str:
    """Write a text with `*` as a pattern that takes time linear in what it is tried on: any program chooses that."""
    first, *rest = map(re.escape, text.split("*"))
    if not rest:
        return first
    *inner, last = rest
    return first + "".join(f"(?>.*?{part})" for part in inner) + f".*{last}"


def _read_limits(limits: object) -> Terms:
    if not isinstance(limits, dict):
        raise ConfigurationError(f"limits = {shown(limits)}: expected a table")
    _check_names(limits, set(_LIMITS))
    for name, value in limits.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ConfigurationError(f"limits.{name} = {shown(value)}: expected a number")
    terms = NO_TERMS._replace(**limits)
    if terms.max_memory is not None:
        terms = terms._replace(max_memory=terms.max_memory * MIB)
    write_terms(terms)  # which checks them
    return terms


class PolicyFile:
    """A policy that can be read again while workers use it. Threads: any reads `policy`, one calls `reload`.

    Raises:
        ConfigurationError: As `Policy.read`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self.policy = Policy.read(self._path)

    def reload(self) -> bool:
        """Read the file again; if it cannot be used, log why, keep the policy as it was, and return `False`."""
        try:
            self.policy = Policy.read(self._path)
        except ConfigurationError as error:
            logger.error("Kept the policy: %s", error)  # noqa: TRY400  (the text says it all)
            return False
        logger.info("Read the policy again: %d rules", len(self.policy.rules))
        return True


def read_policy(path: Path | None) -> PolicyFile | None:
    """Read the file of `--policy`, if there is one.

    Raises:
        ConfigurationError: As `Policy.read`.
    """
    return None if path is None else PolicyFile(path)
