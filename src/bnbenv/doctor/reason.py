"""From symptoms and facts to causes: implications first, then the judge's word on the versions stated."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.doctor.facts import target_of
from bnbenv.errors import BnbenvError
from bnbenv.judge.check import Combination, check
from bnbenv.units import CudaVersion

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bnbenv.doctor.facts import Facts
    from bnbenv.doctor.scan import Seen
    from bnbenv.judge.stack import Finding
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import Implication, Precedence, Symptom

UNKNOWN = "unknown"
NAMES = 50
"""From this score on a cause is named."""
DECIDES = 80
"""From this score on the first of several failures in a text wins, not the heaviest."""
_REPORTED = 90  # an error that `bnbenv report` found: the first of them is the likeliest
_MOST_EVIDENCE = 6
COMPARISON = re.compile(r"(\w+) (<|<=|>=|==) (\S+)")
"""A condition that compares a stated version."""
# What the judge may add, and how much its word weighs where the text shows a failure.
_JUDGED = {
    "torch-arch-unsupported": 82,
    "no-kernel-image": 72,
    "gpu-below-minimum": 72,
    "driver-drops-gpu": 74,
    "driver-too-old": 74,
    "torch-cpu-build": 62,
    "windows-cpu-torch": 62,
    "missing-cuda-binary": 66,
    "cuda-too-old-for-bnb": 66,
    "rocm-unsupported-bnb": 72,
    "rocm-arch-unsupported": 66,
    "rocm-hip-version-skew": 60,
    "jetson-l4t-mismatch": 60,
    "xpu-library-missing": 60,
}
_ALIKE = {"windows-cpu-torch": "torch-cpu-build"}
# Where the text tells of no failure, the judge's word is enough only for a stack that cannot run at all.
_BY_FACTS_ALONE = {"torch-arch-unsupported", "driver-drops-gpu", "driver-too-old"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A cause with the lines that speak for it.

    Attributes:
        score: from 0 to 100.
        lines: line numbers, ascending.
        rules: the implications that named it, and ``judge`` or ``report``.
        findings: what the judge said.
    """

    code: str
    score: int
    lines: tuple[int, ...]
    rules: tuple[str, ...]
    findings: tuple[Finding, ...] = ()


def causes_of(
    seen: Seen, facts: Facts, matrix: Matrix, *, without: frozenset[str] = frozenset()
) -> tuple[Named, ...]:
    """Causes with a score of at least `NAMES`, the answer first.

    Args:
        without: implications to leave out, to see what each is worth.
    """
    kinds = {row.id: row for row in matrix.symptoms}
    held = {name: tuple(hit.line for hit in hits) for name, hits in seen.hits.items() if hits}
    named: dict[str, Named] = {}
    for rule in matrix.implications:
        if rule.id in without:
            continue
        lines = _holds(rule, held, facts)
        if lines is not None:
            _add(named, Named(code=rule.cause, score=rule.weight, lines=lines, rules=(rule.id,)))
    for fact in facts.stated.get("finding", ()):
        if any(row.id == fact.value for row in matrix.causes):
            _add(named, Named(code=fact.value, score=_REPORTED, lines=(fact.line,), rules=("report",)))
    failing = any(kinds[name].kind in ("failure", "symptom") for name in held)
    if "judge" not in without:
        for found in _judged(facts, matrix, held, kinds, failing=failing):
            _add(named, found)
    return _ordered(named, matrix.precedences)


def _add(named: dict[str, Named], new: Named) -> None:
    old = named.get(new.code)
    if old is None:
        named[new.code] = new
        return
    best, other = (old, new) if old.score >= new.score else (new, old)
    named[new.code] = Named(
        code=new.code,
        score=min(99, best.score + (3 if other.score >= 40 else 0)),
        lines=tuple(sorted({*best.lines, *other.lines}))[: 2 * _MOST_EVIDENCE],
        rules=(*best.rules, *other.rules),
        findings=(*best.findings, *other.findings),
    )


def _holds(rule: Implication, held: Mapping[str, tuple[int, ...]], facts: Facts) -> tuple[int, ...] | None:
    """The lines on which an implication rests, or ``None`` where it does not hold."""
    lines: list[int] = []
    for condition in rule.all:
        rests = _condition(condition, held, facts)
        if rests is None:
            return None
        lines += rests
    if rule.any:
        found = [rests for condition in rule.any if (rests := _condition(condition, held, facts)) is not None]
        if not found:
            return None
        for rests in found:
            lines += rests
    if any(_condition(condition, held, facts) is not None for condition in rule.none):
        return None
    return tuple(sorted(set(lines)))


def _condition(text: str, held: Mapping[str, tuple[int, ...]], facts: Facts) -> tuple[int, ...] | None:
    if " " not in text:
        if text in held:
            return held[text][:2]
        return facts.derived.get(text)
    comparison = _compared(text)
    if comparison is None:
        raise AssertionError(f"an implication has the condition {text!r}, which cannot be read")
    name, operator, bound = comparison
    value = facts.best(name)
    if value is None:
        return None
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion

    try:
        inside = SpecifierSet(operator + bound, prereleases=True).contains(value.partition("+")[0])
    except (InvalidVersion, InvalidSpecifier):
        return None
    return facts.lines(name) if inside else None


@lru_cache(maxsize=256)
def _compared(text: str) -> tuple[str, str, str] | None:
    match = COMPARISON.fullmatch(text)
    return (match[1], match[2], match[3]) if match else None


def _judged(
    facts: Facts,
    matrix: Matrix,
    held: Mapping[str, tuple[int, ...]],
    kinds: Mapping[str, Symptom],
    *,
    failing: bool,
) -> Iterable[Named]:
    """What the judge finds wrong with the versions and devices that the text states."""
    torch = facts.best("torch")
    if torch is None or any(kinds[name].kind == "success" for name in held):
        return
    if "+" not in torch and (cuda := facts.best("torch_cuda")) and re.fullmatch(r"\d{1,2}\.\d", cuda):
        torch = f"{torch}+{CudaVersion.parse(cuda).tag}"
    if "+" not in torch and not facts.stated["torch"][0].trust >= 2:
        return
    target = target_of(facts)
    if not target.gpus:
        return
    release = facts.best("bitsandbytes")
    try:
        checked = check(Combination(torch=_release_only(torch), bitsandbytes=release), target, matrix)
    except (BnbenvError, ValueError):
        return
    lines = tuple(sorted({*facts.lines("torch"), *facts.lines("gpu"), *facts.lines("capability")}))
    for finding in checked.judgement.findings:
        if finding.severity != "error" or finding.undecided:
            continue
        code = _ALIKE.get(finding.code, finding.code)
        weight = _JUDGED.get(finding.code)
        if weight is None or not (failing or code in _BY_FACTS_ALONE):
            continue
        if code == "torch-cpu-build" and not re.search(r"\+(?:cpu|xpu)\b", torch):
            continue  # which build it is was guessed; a vendor's own (``+40ec155.nv24.03``) says nothing
        yield Named(
            code=code,
            score=weight if failing else min(weight, 60),
            lines=tuple(sorted({*lines, *(facts.lines("driver") if "driver" in code else ())})),
            rules=("judge",),
            findings=(finding,),
        )


def _release_only(text: str) -> str:
    """A nightly counts as the release that it led to."""
    return re.sub(r"\.?(?:dev|a|b|rc)\d+", "", text)


def _ordered(named: Mapping[str, Named], precedences: Sequence[Precedence]) -> tuple[Named, ...]:
    told = [entry for entry in named.values() if entry.score >= NAMES]
    over = {row.cause: frozenset(row.over) for row in precedences}
    hidden = {
        entry.code for entry in told for other in told if entry.code in over.get(other.code, frozenset())
    }

    def key(entry: Named) -> tuple[bool, bool, int, int]:
        decides = entry.score >= DECIDES
        first = min(entry.lines, default=0)
        return (
            entry.code in hidden,
            not decides,
            first if decides else -entry.score,
            -entry.score if decides else first,
        )

    return tuple(sorted(told, key=key))
