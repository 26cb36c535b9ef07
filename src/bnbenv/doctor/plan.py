"""The plan of a repair as a value: the fewest steps that mend what was found, each with its reason."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bnbenv.judge.stack import Finding
    from bnbenv.matrix.rows import Cause, RepairPart

Mode = Literal["auto", "keep-torch", "restore", "upgrade"]
Action = Literal[
    "reinstall",  # the same version again
    "install",  # what is missing, or another version
    "choose",  # let the judge choose: bitsandbytes, torch or the Hugging Face set
    "mend-venv",  # pyvenv.cfg, the interpreter's links, scripts
    "mend-guard",  # what holds installs to the lock
    "rebuild",  # a new generation from the lock
    "solve",  # a new generation from a new lock
    "show",  # outside the environment: told, never done
    "stop",  # cannot be mended from here
]

# What a repair does something about: itself, and at once.
_ACTS: frozenset[RepairPart] = frozenset(
    {"reinstall", "missing", "bitsandbytes", "torch", "hugging-face", "venv"}
)
# What is chosen anew: the versions themselves do not fit.
_PARTS: frozenset[RepairPart] = frozenset({"bitsandbytes", "torch", "hugging-face"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to do, or to tell.

    Attributes:
        subject: the package, file, variable or machine part it is about.
        summary: what is done, in a sentence.
        why: the causes that ask for it, a line each.
        commands: what the user types, where bnbenv does not do it itself.
    """

    action: Action
    subject: str
    summary: str
    why: tuple[str, ...]
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a repair will do.

    Attributes:
        steps: in the order in which they are done; empty where nothing is to be done.
        shown: what the user has to do outside the environment.
        stops: what keeps anything from being mended here; then `steps` is empty.
    """

    steps: tuple[Step, ...] = ()
    shown: tuple[Step, ...] = ()
    stops: tuple[Step, ...] = ()

    def subjects(self, *actions: Action) -> frozenset[str]:
        """The subjects of the steps with these actions."""
        return frozenset(step.subject for step in self.steps if step.action in actions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a plan is made from.

    Attributes:
        environment: how the user calls it on the command line.
        causes: those of the matrix by their ids.
        locked: name → version of the lock it was built from; ``None`` where there is none.
        rebuilds: a new generation can be built beside it; else it is mended in place.
        installed: name → version.
    """

    environment: str
    findings: Sequence[Finding]
    installed: Mapping[str, str]
    causes: Mapping[str, Cause]
    locked: Mapping[str, str] | None = None
    rebuilds: bool = False

    def repair(self, finding: Finding) -> tuple[RepairPart, ...]:
        """What a repair does about a finding."""
        return self.causes[finding.code].repair


def make_plan(facts: Facts, mode: Mode = "auto") -> Plan:
    """The fewest steps that mend the findings of severity error and warning.

    A finding of severity info asks for nothing. Without a finding nothing is done, whatever was changed on
    the machine, unless `mode` asks for it.
    """
    serious = [finding for finding in facts.findings if finding.severity != "info"]
    errors = [finding for finding in serious if finding.severity == "error"]
    outside = [finding for finding in serious if is_outside(finding, facts.causes)]
    shown = tuple(_told(finding, "show", facts) for finding in outside)
    stops = tuple(_told(finding, "stop", facts) for finding in errors if "stop" in facts.repair(finding))
    if stops:
        return Plan(shown=shown, stops=stops)
    inside = [
        finding
        for finding in serious
        if not _ACTS.isdisjoint(facts.repair(finding)) or _is_drift(finding, facts)
    ]
    steps = _rebuilt(inside, facts, mode) if facts.rebuilds else _mended(inside, facts, mode)
    if not steps:
        # An error that nothing here can mend: the user must know the next step, and nothing is touched.
        stops = tuple(_told(finding, "stop", facts) for finding in errors if finding not in outside)
    return Plan(steps=steps, shown=shown, stops=stops)


def is_outside(finding: Finding, causes: Mapping[str, Cause]) -> bool:
    """Whether it is about what surrounds the environment, and is shown to the user."""
    return "outside" in causes[finding.code].repair


def _is_drift(finding: Finding, facts: Facts) -> bool:
    """Whether it says that an environment differs from its lock, or from its base."""
    return "lock" in facts.repair(finding) and facts.locked is not None


def _rebuilt(findings: Sequence[Finding], facts: Facts, mode: Mode) -> tuple[Step, ...]:
    """One new generation: from the lock, or from a new lock that keeps what can be kept."""
    why = tuple(_why(finding) for finding in findings)
    if mode == "upgrade":
        reason = why or ("--upgrade: the newest stack for this machine",)
        return (Step(action="solve", subject="stack", summary="choose the newest stack anew", why=reason),)
    if not findings and mode == "auto":
        return ()
    locked = facts.locked or {}
    present, wanted = facts.installed.get("torch"), locked.get("torch")
    moved = present is not None and present != wanted
    if mode == "keep-torch" and not (moved or findings):
        return ()
    if moved and mode in {"auto", "keep-torch"}:
        return (
            Step(
                action="solve",
                subject="torch",
                summary=f"keep torch {present}, and choose the bitsandbytes and Hugging Face set that fit it",
                why=why or (f"torch is {present}, the lock says {wanted}",),
            ),
        )
    if not findings and mode == "restore" and not differences(facts):
        return ()
    # What the judge finds wrong with the locked versions themselves, no rebuild from that lock can mend.
    unmendable = [
        finding
        for finding in findings
        if finding.code == "base-changed"
        or (not _PARTS.isdisjoint(facts.repair(finding)) and not differences(facts))
    ]
    if unmendable and mode != "restore":
        return (
            Step(
                action="solve",
                subject="stack",
                summary="choose a stack for this machine again: the locked one no longer fits it",
                why=why,
            ),
        )
    return (
        Step(
            action="rebuild",
            subject="environment",
            summary="build a new generation from the same lock, and switch to it",
            why=why or tuple(differences(facts)),
        ),
    )


def differences(facts: Facts) -> list[str]:
    """Where the installed versions are not the lock's, a line each; what was added is no difference."""
    lines = []
    for name, version in sorted((facts.locked or {}).items()):
        present = facts.installed.get(name)
        if present is None:
            lines.append(f"{name} {version} is gone")
        elif not same_version(present, version):
            lines.append(f"{name} is {present}, the lock says {version}")
    return lines


def same_version(one: str, other: str) -> bool:
    """Whether two versions are the same but for a local part that only one of them has."""
    from bnbenv.env.installed import equal_versions

    if "+" in one and "+" in other:
        return equal_versions(one, other)
    return equal_versions(one.partition("+")[0], other.partition("+")[0])


def _mended(findings: Sequence[Finding], facts: Facts, mode: Mode) -> tuple[Step, ...]:  # noqa: C901 - one question a kind
    """Steps in place, by package; what is chosen anew is not reinstalled as well."""
    steps: list[Step] = []
    of_venv = [finding for finding in findings if "venv" in facts.repair(finding)]
    if of_venv:
        steps.append(
            Step(
                action="mend-venv",
                subject="interpreter",
                summary="write pyvenv.cfg, the interpreter's links and the scripts' first lines anew",
                why=tuple(map(_why, of_venv)),
            )
        )
    of_guard = [finding for finding in findings if finding.subject == "guard" and _is_drift(finding, facts)]
    if of_guard:
        steps.append(
            Step(
                action="mend-guard",
                subject="guard",
                summary="write anew what holds installs to the lock",
                why=tuple(map(_why, of_guard)),
            )
        )
    chosen: dict[str, list[str]] = {}
    absent = {id(finding): _absent(finding, facts) for finding in findings}
    for finding in findings:
        if absent[id(finding)]:
            continue
        for part in _PARTS.intersection(facts.repair(finding)):
            chosen.setdefault(part, []).append(_why(finding))
    if mode == "upgrade":
        for part in ("torch", "bitsandbytes", "hugging-face"):
            chosen.setdefault(part, []).append("--upgrade: the newest stack for this machine")
    words = {
        "bitsandbytes": "choose the bitsandbytes that fits the torch that is there",
        "torch": "choose a build of torch for this machine, and the bitsandbytes that fits it",
        "hugging-face": "choose a set of Hugging Face packages whose releases agree",
    }
    steps += [
        Step(action="choose", subject=part, summary=words[part], why=tuple(why))
        for part, why in chosen.items()
    ]
    reinstalled: dict[str, list[str]] = {}
    for finding in findings:
        # What a part that is chosen anew needs comes with it.
        packages = [] if _part_of(finding) in chosen else list(absent[id(finding)])
        if "reinstall" in facts.repair(finding) or _is_drift(finding, facts):
            packages += filter(None, [_package_of(finding, facts)])
        elif finding.code == "torch-triton-mismatch" and not packages:
            packages.append("triton")
        for package in packages:
            if package not in chosen:
                reinstalled.setdefault(package, []).append(_why(finding))
    if facts.locked is not None and (mode == "restore" or any(_is_drift(it, facts) for it in findings)):
        for line in differences(facts):
            reinstalled.setdefault(line.partition(" ")[0], []).append(line)
    for package, why in reinstalled.items():
        steps.append(_reinstallation(package, tuple(why), facts))
    return tuple(steps)


def _reinstallation(package: str, why: tuple[str, ...], facts: Facts) -> Step:
    present = facts.installed.get(package)
    wanted = (facts.locked or {}).get(package)
    if present is None or (wanted is not None and not same_version(present, wanted)):
        version = f" {wanted}" if wanted else ""
        return Step(action="install", subject=package, summary=f"install {package}{version}", why=why)
    return Step(
        action="reinstall",
        subject=package,
        summary=f"install {package} {present} again, the same version",
        why=why,
    )


def _package_of(finding: Finding, facts: Facts) -> str | None:
    """The package that a finding is about, by its subject."""
    name = re.sub(r"[-_.]+", "-", finding.subject).lower()
    known = name in facts.installed or name in (facts.locked or {})
    # What has lost its metadata is not among the installed ones.
    return name if known or finding.code == "record-missing" else None


def _part_of(finding: Finding) -> str:
    """The part that is chosen with the package that a finding is about."""
    return finding.subject if finding.subject in {"torch", "bitsandbytes"} else "hugging-face"


def _absent(finding: Finding, facts: Facts) -> tuple[str, ...]:
    """The packages that something needs and does not find; the evidence names one a line: ``name>=1.2``."""
    if "missing" not in facts.repair(finding):
        return ()
    named = (re.fullmatch(r"([A-Za-z0-9][\w.-]*?)\s*([<>=!~].*)?", line) for line in finding.evidence)
    names = [re.sub(r"[-_.]+", "-", match[1]).lower() for match in named if match]
    return tuple(name for name in names if name not in facts.installed)


def _told(finding: Finding, action: Action, facts: Facts) -> Step:
    remedy = finding.remedy
    commands = remedy.commands if remedy else ()
    if finding.code == "no-gpu-visible":
        repair = shlex.join(["bnbenv", "repair", facts.environment])
        commands = (*commands, f"{repair} --target FILE", f"{repair} --cpu")
    return Step(
        action=action,
        subject=finding.subject,
        summary=remedy.summary if remedy else finding.summary,
        why=(_why(finding), *finding.evidence),
        commands=commands,
    )


def _why(finding: Finding) -> str:
    return f"{finding.code}: {finding.summary}"


def variables_of(
    before: Sequence[Finding],
    without: Sequence[Finding],
    names: Sequence[str],
    causes: Mapping[str, Cause],
) -> tuple[Step, ...]:
    """What is wrong only while variables are set: to be unset by the user, whatever else it looks like.

    Args:
        before: the findings with the variables.
        without: those of the same environment without them.
        names: the variables that are set.
        causes: those of the matrix by their ids.
    """
    left = {(found.code, found.subject) for found in without if found.severity != "info"}
    outside = [found for found in before if is_outside(found, causes)]
    told = {found.subject for found in outside if found.severity != "info"}
    gone = [found for found in before if (found.code, found.subject) not in left]
    why = tuple(_why(found) for found in gone if found.severity == "error" and found not in outside)
    return tuple(
        Step(
            action="show",
            subject=name,
            summary=f"unset {name}: without it this is not found",
            why=why,
            commands=(f"unset {name}",),
        )
        for name in names
        if why and name not in told
    )


def codes(steps: Iterable[Step]) -> frozenset[str]:
    """The causes that steps answer to."""
    return frozenset(line.partition(":")[0] for step in steps for line in step.why)
