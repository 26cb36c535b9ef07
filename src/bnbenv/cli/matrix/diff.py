"""`matrix diff`: what changed between two releases of torch or bitsandbytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bnbenv.cli.outcome import Outcome
from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Sequence

    from bnbenv.cli.ui import Ui
    from bnbenv.matrix.rows import NativeLibrary


_MARKS = {"gone": ("-", "red"), "new": ("+", "green"), "changed": ("~", "yellow")}


def diff(args: Namespace, ui: Ui) -> Outcome:
    """Answer with one entry for every platform and library, or build, that differs."""
    words: list[str] = list(args.words)
    package = words.pop(0).lower() if words and words[0].lower() in {"torch", "bitsandbytes"} else ""
    if len(words) != 2:
        raise UsageError(
            "`matrix diff` takes two releases",
            hint="bnbenv matrix diff 0.46.1 0.47.0, or bnbenv matrix diff torch 2.10.0 2.11.0",
        )
    from bnbenv.matrix.load import bare_release, load

    matrix = load("bitsandbytes", "torch")
    held = {
        "bitsandbytes": {row.version for row in matrix.bitsandbytes},
        "torch": {row.version for row in matrix.torch},
    }
    spelt = {bare_release(version): version for known in held.values() for version in known}
    words = [spelt.get(bare_release(word), word) for word in words]
    package = package or next((name for name, known in held.items() if set(words) <= known), "")
    if not package or not set(words) <= held[package]:
        missing = [word for word in words if word not in held[package or "bitsandbytes"]]
        raise UsageError(
            f"the matrix of {matrix.revision} holds no {package or 'bitsandbytes'} {', '.join(missing)}",
            hint=f"bnbenv matrix show {package or 'bitsandbytes'}",
        )
    old, new = words
    if package == "torch":
        before = {_build(row): _torch_facts(row) for row in matrix.torch if row.version == old}
        after = {_build(row): _torch_facts(row) for row in matrix.torch if row.version == new}
    else:
        before = _wheel_facts(matrix.bitsandbytes, old)
        after = _wheel_facts(matrix.bitsandbytes, new)
    changes = list(_changes(before, after))
    data = {"revision": matrix.revision, "package": package, "old": old, "new": new, "changes": changes}
    return Outcome(data=data, text=_text(package, old, new, changes, ui))


def _build(row: Any) -> str:
    return f"{row.os} {row.arch} {row.build} ({row.index})"


def _torch_facts(row: Any) -> dict[str, list[str]]:
    return {
        "cubins": [str(one) for one in row.cubins],
        "ptx": [str(one) for one in row.ptx],
        "pythons": list(row.pythons),
        "triton": [row.triton] if row.triton else [],
        "glibc": [str(row.oldest_glibc)] if row.oldest_glibc else [],
    }


def _wheel_facts(rows: Iterable[Any], version: str) -> dict[str, dict[str, list[str]]]:
    facts: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        if row.version != version:
            continue
        where = f"{row.os} {row.arch}"
        facts[where] = {
            "requires": list(row.requires),
            "requires-python": [row.requires_python] if row.requires_python else [],
            "tag": [row.platform],
        }
        for library in row.libraries:
            facts[f"{where} {library.name}"] = _library_facts(library)
    return facts


def _library_facts(row: NativeLibrary) -> dict[str, list[str]]:
    return {
        "cubins": [str(one) for one in row.cubins],
        "ptx": [f"{one} ({row.ptx_linkage})" for one in row.ptx],
        "gfx": list(row.gfx),
        "needed": list(row.needed),
        "symbols": [f"{name}_{version}" for name, version in row.symbol_versions.items()],
    }


def _changes(
    before: dict[str, dict[str, list[str]]], after: dict[str, dict[str, list[str]]]
) -> Iterable[dict[str, Any]]:
    for what in sorted({*before, *after}):
        if what not in after:
            yield {"what": what, "change": "gone", "facts": {}}
        elif what not in before:
            yield {"what": what, "change": "new", "facts": _differences({}, after[what])}
        elif facts := _differences(before[what], after[what]):
            yield {"what": what, "change": "changed", "facts": facts}


def _differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, Any]:
    found = {}
    for name, values in after.items():
        old = before.get(name, [])
        gained = [one for one in values if one not in old]
        lost = [one for one in old if one not in values]
        if gained or lost:
            found[name] = {"gained": gained, "lost": lost}
    return found


def _text(package: str, old: str, new: str, changes: Sequence[dict[str, Any]], ui: Ui) -> str:
    if not changes:
        return f"{package} {old} and {new} hold the same"
    lines = [f"{package} {old} → {new}"]
    for change in changes:
        mark, colour = _MARKS[change["change"]]
        lines.append(ui.paint(f"{mark} {change['what']}", colour))
        for name, values in change["facts"].items():
            if values["lost"]:
                lines.append(f"    {name} - {' '.join(values['lost'])}")
            if values["gained"]:
                lines.append(f"    {name} + {' '.join(values['gained'])}")
    return "\n".join(lines)
