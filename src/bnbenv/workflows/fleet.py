"""The machines of a lock: gathered from targets and from the present lock, and told apart by the rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass, field, replace
from bnbenv.errors import DataError, UsageError
from bnbenv.judge.cover import Kind
from bnbenv.judge.kind import class_of
from bnbenv.judge.stack import Stack
from bnbenv.lockfile.commands import lock_command
from bnbenv.machine.document import target_from_dict, target_to_dict
from bnbenv.workflows.choose import DOWNLOADABLE_PYTHONS

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from bnbenv.lockfile.index import MachineClass, TeamLock, Variant
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix

# Of a GPU, what a rule or a reader needs; serial numbers and the like are nobody's business in a lock.
_GPU_FACTS = ("name", "compute_capability", "gfx", "visible", "integrated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A machine as one call gives it.

    Attributes:
        origin: the file, the line of one, or the options that describe it; for messages.
    """

    target: Target
    origin: str


@dataclass(slots=True, kw_only=True)
class Members:
    """The machines of one class.

    Attributes:
        key: what the rules can tell of them.
        facts: of one of them, in the shape of a target file; the least by its text, so that the order in
            which machines are met does not matter.
        pythons: what all of them have; ``None`` while none has told.
        seen: the day when such facts were first given.
    """

    key: Hashable
    facts: dict[str, Any]
    machines: set[str] = field(default_factory=set)
    pythons: frozenset[str] | None = None
    seen: str = ""

    @property
    def target(self) -> Target:
        """The class as a machine."""
        return target_from_dict({"schema": 1, **self.facts})


@dataclass(slots=True, kw_only=True)
class Fleet:
    """Machines by class; grows machine by machine, and holds no more than the classes and the names.

    Attributes:
        matrix: its rules tell the classes apart.
        lost: machines whose accelerator is gone from what they say now: their last facts are kept.
    """

    matrix: Matrix
    classes: dict[Hashable, Members] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    _of: dict[str, Members] = field(default_factory=dict)
    _given: dict[str, tuple[Hashable, str]] = field(default_factory=dict)

    def recall(self, lock: TeamLock, *, forget: Iterable[str] = ()) -> None:
        """Take in the machines of a present lock, with the day of their facts."""
        gone = frozenset(forget)
        for entry in lock.classes:
            names = [name for name in entry.machines if name not in gone]
            if not names:
                continue
            target = machine_of(entry, lock)
            key = key_of(target, self.matrix)
            members = self._join(key, target, entry.seen)
            for name in names:
                members.machines.add(name)
                self._of[name] = members

    def add(self, given: Given, *, today: str, cpu: bool = False) -> None:
        """Take in a machine as it is now; what the present lock knew of it is replaced.

        Raises:
            UsageError: code ``bad-target``; one of its name was added already, and is of another kind.
        """
        target = given.target
        key = key_of(target, self.matrix)
        if key in self.classes:
            key = self.classes[key].key  # the same object for all machines, since it is kept for each
        other, origin = self._given.setdefault(target.name, (key, given.origin))
        if other != key:
            raise UsageError(
                f"{origin} and {given.origin} describe machines of different kinds, and both call theirs "
                f"`{target.name}`",
                hint='give each a "name" of its own in its file',
                code="bad-target",
            )
        before = self._of.get(target.name)
        if before is not None and before.key != key:
            if before.facts["accelerator"] != "cpu" and target.accelerator == "cpu" and not cpu:
                self.lost.append(target.name)
                return
            before.machines.discard(target.name)
            if not before.machines:
                del self.classes[before.key]
        members = self._join(key, target, today)
        members.machines.add(target.name)
        self._of[target.name] = members

    def _join(self, key: Hashable, target: Target, seen: str) -> Members:
        facts = facts_of(target)
        members = self.classes.get(key)
        if members is None:
            members = self.classes[key] = Members(key=key, facts=facts, seen=seen)
        elif _text(facts) < _text(members.facts):
            members.facts = facts
        members.seen = min(members.seen, seen)
        if target.pythons:
            mine = frozenset(target.pythons)
            members.pythons = mine if members.pythons is None else members.pythons & mine
        return members

    def kinds(self, *, wide: bool = False) -> list[Kind]:
        """The classes for the judge, all with the Pythons that all machines have; or that uv can fetch."""
        told = [members.pythons for members in self.classes.values() if members.pythons is not None]
        common = frozenset.intersection(*told) if told else frozenset()
        pythons = DOWNLOADABLE_PYTHONS if wide or not common else tuple(sorted(common))
        return [
            Kind(key=key, target=replace(members.target, name=self.name_of(key), pythons=pythons))
            for key, members in self.classes.items()
        ]

    def name_of(self, key: Hashable) -> str:
        """The first of a class's machines."""
        return min(self.classes[key].machines, default="unnamed")


def key_of(target: Target, matrix: Matrix) -> Hashable:
    """What the rules can tell of a machine by the facts that a lock keeps.

    Its Pythons are none of them, since uv fetches one where it must, nor is its processor, which no choice
    depends on.
    """
    return class_of(replace(target, pythons=(), cpu_flags=None), matrix)


def machine_of(entry: MachineClass, lock: TeamLock, *, name: str = "unnamed") -> Target:
    """One of the machines of a lock, by its facts.

    Raises:
        DataError: code ``lock-invalid``; they are no machine's.
    """
    try:
        return target_from_dict({"schema": 1, "name": name, **entry.facts}, where="classes.facts")
    except UsageError as problem:
        raise DataError(
            f"`{lock.origin}` is not a valid lock: {problem.message}",
            hint="take it from version control again",
            code="lock-invalid",
        ) from problem


def facts_of(target: Target) -> dict[str, Any]:
    """A machine in the shape of a target file, without its name and what tells it from its like."""
    document = target_to_dict(target)
    for key in ("schema", "name", "pythons", "cpu"):
        document.pop(key, None)
    gpus = [{key: gpu[key] for key in _GPU_FACTS if key in gpu} for gpu in document["gpus"]]
    document["gpus"] = sorted(gpus, key=_text)
    return {key: value for key, value in document.items() if value not in (None, False, [])}


def stored_facts(members: Members) -> dict[str, Any]:
    """What the lock keeps of a class."""
    pythons = {"pythons": sorted(members.pythons, key=_minor)} if members.pythons else {}
    return {**members.facts, **pythons}


def stack_of(variant: Variant, profile: str, matrix: Matrix) -> Stack:
    """The stack that a variant was made of, with what the matrix knows of it today.

    Raises:
        DataError: code ``matrix-invalid``; the matrix does not know a release of it.
    """
    torch = variant.torch
    rows = [
        row
        for row in matrix.torch
        if (row.version, row.build, row.os, row.arch)
        == (torch["version"], torch["build"], variant.os, variant.arch)
    ]
    row = next((row for row in rows if row.index == torch["index"]), rows[0] if rows else None)
    if row is None:
        release = f"torch {torch['version']} ({torch['build']}) for {variant.os} {variant.arch}"
        raise _unknown(release, variant, matrix)
    if row.index != torch["index"]:  # an index of the user's own
        row = row._replace(index=torch["index"], local=torch.get("local"), pythons=(variant.python,))
    wheel = None
    if variant.bitsandbytes is not None:
        wanted = variant.bitsandbytes["wheel"]
        wheel = next((found for found in matrix.bitsandbytes if found.wheel == wanted), None)
        if wheel is None:
            raise _unknown(f"`{wanted}`", variant, matrix)
    return Stack(
        python=variant.python,
        torch=row,
        bitsandbytes=wheel,
        profile=profile,
        packages=dict(variant.packages),
    )


def assigned(lock: TeamLock, matrix: Matrix) -> Mapping[Hashable, Stack]:
    """Class → stack, as a present lock has it.

    Raises:
        DataError: code ``matrix-invalid``; the matrix does not know a release of it.
    """
    profile = str(lock.request.get("profile", "qlora"))
    stacks = {variant.name: stack_of(variant, profile, matrix) for variant in lock.variants}
    return {
        key_of(machine_of(entry, lock), matrix): stacks[entry.variant]
        for entry in lock.classes
        if entry.variant is not None
    }


def _unknown(what: str, variant: Variant, matrix: Matrix) -> DataError:
    again = lock_command(Path(variant.origin).parent, "--repack")
    return DataError(
        f"the lock names {what}, which the matrix {matrix.revision} does not know",
        hint=f"upgrade bnbenv (`uv tool upgrade bnbenv`), or {again}",
    )


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _minor(python: str) -> tuple[int, ...]:
    return tuple(int(part) for part in python.split(".")[:2])
