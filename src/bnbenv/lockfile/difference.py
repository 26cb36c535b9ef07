"""What two locks of one team differ in, in words: which machines get what other than before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.lockfile import index, pylock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from bnbenv.lockfile.index import TeamLock, Variant
    from bnbenv.lockfile.pylock import Pylock

_NAMED = 8  # machines and packages that are named one by one


def differences(
    before: TeamLock | None, texts: Mapping[str, str], after: TeamLock, files: Mapping[str, str]
) -> tuple[str, ...]:
    """What changed for whom, a sentence each; none where nothing did.

    Args:
        before: the old index; ``None`` where there was none.
        texts: its locks by variant.
        after: the new index.
        files: its locks by file name.
    """
    if before is None:
        return tuple(_served(after))
    told = [*_moves(_by_machine(before), _by_machine(after))]
    known = {variant.name: variant for variant in before.variants}
    for variant in after.variants:
        if variant.name in known:
            lines = _packages(texts.get(variant.name, ""), files.get(variant.file, ""))
            if known[variant.name].python != variant.python:
                lines.insert(0, f"Python {known[variant.name].python} → {variant.python}")
            if lines:
                told.append(f"{variant.name} ({_machines(after, variant)}): {some(lines)}")
    told += [f"{variant.file} goes: no machine needs it" for variant in _gone(before, after)]
    old, new = _plain(before.request), _plain(after.request)
    if other := [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]:
        told.append(f"what was asked for changed: {', '.join(other).replace('_', '-')}")
    if before.matrix != after.matrix:
        told.append(f"judged by the matrix {after.matrix} instead of {before.matrix}")
    whole = known.keys() <= texts.keys()  # of a lock that counts for nothing, whoever read it has told
    if not told and whole and index.dump(before) != index.dump(after):
        told.append("the same for everybody; only what the locks say of themselves and of machines changed")
    return tuple(told)


def _gone(before: TeamLock, after: TeamLock) -> Iterable[Variant]:
    """The variants whose file is no longer named."""
    names = {variant.name for variant in after.variants}
    return (variant for variant in before.variants if variant.name not in names)


def _moves(old: Mapping[str, str | None], new: Mapping[str, str | None]) -> Iterable[str]:
    """Machines that come, go, or get another variant."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for name in sorted({*old, *new}):
        if name not in new:
            groups.setdefault(("gone", _word(old[name]), ""), []).append(name)
        elif name not in old:
            groups.setdefault(("new", "", _word(new[name])), []).append(name)
        elif old[name] != new[name]:
            groups.setdefault(("other", _word(old[name]), _word(new[name])), []).append(name)
    for (kind, was, now), names in sorted(groups.items()):
        if kind == "gone":
            yield f"{some(names)}: no longer in the lock; had {was}"
        elif kind == "new":
            yield f"{some(names)}: new, gets {now}"
        else:
            yield f"{some(names)}: from {was} to {now}"


def _served(lock: TeamLock) -> Iterable[str]:
    for variant in lock.variants:
        yield f"{variant.name}: {_machines(lock, variant)}"
    for entry in lock.classes:
        if entry.variant is None:
            yield f"nothing serves {some(entry.machines)}: {'; '.join(entry.blocking)}"


def _plain(request: Mapping[str, Any]) -> dict[str, Any]:
    """A request as a file gives it back."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in request.items()}


def _packages(before: str, after: str) -> list[str]:
    if before == after or not before or not after:
        return []
    one, other = pylock.parse(before), pylock.parse(after)
    old, new = _versions(one), _versions(other)
    told = [f"{name} {old[name]} → {new[name]}" for name in sorted({*old} & {*new}) if old[name] != new[name]]
    told += [f"{name} {new[name]} added" for name in sorted({*new} - {*old})]
    told += [f"{name} {old[name]} removed" for name in sorted({*old} - {*new})]
    if told:
        return told
    if one.digest != other.digest:
        return ["the same versions, other files"]
    return ["the same files from other addresses"] if _addresses(one) != _addresses(other) else []


def _versions(lock: Pylock) -> dict[str, str]:
    return {package.name: package.version or "?" for package in lock.packages}


def _addresses(lock: Pylock) -> set[tuple[str | None, str | None]]:
    return {(package.index, artefact.url) for package in lock.packages for artefact in package.artefacts}


def _by_machine(lock: TeamLock) -> dict[str, str | None]:
    return {name: entry.variant for entry in lock.classes for name in entry.machines}


def _machines(lock: TeamLock, variant: Variant) -> str:
    names = sorted(name for entry in lock.serving(variant.name) for name in entry.machines)
    return some(names) or "no machine"


def some(names: Iterable[str]) -> str:
    """The first of many names, and how many more there are."""
    every = list(names)
    shown = ", ".join(every[:_NAMED])
    return shown if len(every) <= _NAMED else f"{shown} and {len(every) - _NAMED} more"


def _word(variant: str | None) -> str:
    return variant or "nothing"
