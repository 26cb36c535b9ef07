"""Matches a failed check with the known faults of upstream, exactly or not at all."""

from __future__ import annotations

import re
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from bnbenv.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bnbenv.matrix.rows import KnownFault
    from bnbenv.selftest.verdict import Check

_TERM = re.compile(
    r"(?:%\s*(?P<modulus>\w+)\s*)?(?P<operator>==|!=|<=|>=|<|>)\s*(?P<value>-?[\w.]+)|~\s*(?P<text>.+)"
)
_COMPARE = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def explain(
    check: Check,
    *,
    device: str,
    versions: Mapping[str, str],
    cpu_flags: Iterable[str] | None,
    rows: Iterable[KnownFault],
) -> Check:
    """The check as it is, or as `known-fault` if a row describes exactly this failure.

    Args:
        check: any check; only `failed` and `crashed` ones can change.
        device: as torch names it, such as ``cuda:0``.
        versions: package → version seen inside the environment.
        cpu_flags: of the processor; ``None`` where unknown, and then no row that needs one matches.
        rows: of `compat/known_faults.toml`.

    Raises:
        DataError: a row's rule cannot be read.
    """
    if check.state not in {"failed", "crashed"}:
        return check
    flags = None if cpu_flags is None else frozenset(cpu_flags)
    for row in rows:
        if _matches(row, check, device, versions, flags):
            return replace(check, state="known-fault", fault=row.id)
    return check


def _matches(
    row: KnownFault, check: Check, device: str, versions: Mapping[str, str], flags: frozenset[str] | None
) -> bool:
    if row.device and row.device != device.partition(":")[0]:
        return False
    if row.cpu_flags and (flags is None or not set(row.cpu_flags) <= flags):
        return False
    if row.dtypes and check.dtype not in row.dtypes:
        return False
    if not any(fnmatchcase(check.name, pattern) for pattern in row.checks):
        return False
    if not _within(versions.get(row.package), row.versions):
        return False
    facts = _facts(check)
    return all(holds(rule, name, facts) for name, rule in row.shapes.items())


def _within(version: str | None, specifier: str) -> bool:
    if version is None:
        return False
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion

    try:
        return SpecifierSet(specifier).contains(version, prereleases=True)
    except InvalidVersion:
        return False


def _facts(check: Check) -> Mapping[str, Any]:
    facts = dict(check.shape)
    if "count" not in facts and {"rows", "cols"} <= facts.keys():
        facts["count"] = facts["rows"] * facts["cols"]
    facts["error"] = check.error
    facts["detail"] = check.detail
    return facts


def holds(rule: str, name: str, facts: Mapping[str, Any]) -> bool:
    """Whether a rule holds for the fact of that name.

    A rule is one or more terms joined by ``and``: ``> 1``, ``% 16 == 0``, ``% blocksize != 0`` (numbers, or
    names of other facts), or ``~ text`` for a text that holds the other. An unknown fact fulfils no term.

    Raises:
        DataError: the rule is malformed.
    """
    terms = [_term(term.strip(), rule, name, facts) for term in rule.split(" and ")]  # reads every one
    return all(terms)


def _term(term: str, rule: str, name: str, facts: Mapping[str, Any]) -> bool:
    found = _TERM.fullmatch(term)
    if found is None:
        raise DataError(
            f"known fault: the rule `{rule}` on `{name}` cannot be read at `{term}`",
            hint="write terms such as `> 1`, `% 16 == 0`, `% blocksize != 0` or `~ text`, joined by ` and `",
        )
    fact = facts.get(name)
    if found["text"] is not None:
        return isinstance(fact, str) and found["text"] in fact
    value = _number(found["value"], facts)
    modulus = None if found["modulus"] is None else _number(found["modulus"], facts)
    if not isinstance(fact, int | float) or value is None:
        return False
    if found["modulus"] is not None:
        if not modulus:
            return False
        fact %= modulus
    return bool(_COMPARE[found["operator"]](fact, value))


def _number(text: str, facts: Mapping[str, Any]) -> float | None:
    try:
        return float(text)
    except ValueError:
        value = facts.get(text)
        return value if isinstance(value, int | float) else None
