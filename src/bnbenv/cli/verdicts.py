"""How a verdict is told to a person: by device, then what was found, then what can be done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bnbenv.cli.ui import Ui
    from bnbenv.env.generation import Generation
    from bnbenv.env.layout import Place
    from bnbenv.selftest.verdict import Check, Device, Verdict

COLOURS = {"passed": "green", "degraded": "yellow", "failed": "red", "not-run": "yellow"}
_WRONG = frozenset({"failed", "crashed", "degraded"})
_SHOWN = 12  # wrong checks a device; `-v` shows every check


def headline(verdict: Verdict, ui: Ui) -> str:
    """The word, and the library it is about."""
    word = "not run" if verdict.verdict == "not-run" else verdict.verdict
    library = verdict.library or _imported(verdict) or "no native library was loaded"
    return f"{ui.paint(word, COLOURS[verdict.verdict], 'bold')}: {library}"


def after_failure(place: Place, kept: Generation | None) -> str:
    """What stands at a place after a build that does not compute rightly: `kept`, the one before, if any."""
    if place.form == "plain":
        return "the directory is changed, and of no use until it is made anew"
    return "the one before is still current" if kept else "it was not kept"


def _imported(verdict: Verdict) -> str | None:
    """What is said of an environment without bitsandbytes, which is imported and not computed with."""
    names = [device.name for device in verdict.devices if device.device == "import"]
    return f"{names[0]} import, and nothing was computed" if names and verdict.verdict == "not-run" else None


def details(verdict: Verdict, ui: Ui) -> list[str]:
    """Everything below the headline; where nothing was computed, why, once, and not what lacks for it."""
    if stopped := _stopped(verdict):
        return [f"  {line}" for line in (stopped, *(it for it in verdict.notes if "no check of `" not in it))]
    lines: list[str] = []
    for device in verdict.devices:
        lines += _device(device, ui)
    lines += [f"  {note}" for note in verdict.notes]
    return [*lines, *faults(verdict, ui)]


def _stopped(verdict: Verdict) -> str | None:
    """What ended the self-test before its first computation, on every device the same; else ``None``."""
    checks = [check for device in verdict.devices for check in device.checks]
    told = {check.detail for check in checks if check.state in {"failed", "crashed"}}
    begun = any(check.name not in {"import", "process"} for check in checks)
    return None if begun or len(told) != 1 else told.pop()


def faults(verdict: Verdict, ui: Ui) -> list[str]:
    """The known faults of upstream that were met, each with its workaround."""
    if not verdict.faults:
        return []
    from bnbenv.matrix.load import load

    rows = {row.id: row for row in load("known_faults").known_faults}
    lines = []
    if verdict.verdict == "degraded":
        lines.append("  it can be used: what failed are known faults of upstream, each with a way around it")
    for name in verdict.faults:
        lines.append(f"  {ui.paint('known fault', 'yellow')} {name}")
        if row := rows.get(name):
            lines += [f"    {row.summary}", f"    {row.workaround}"]
    return lines


def _device(device: Device, ui: Ui) -> Iterator[str]:
    counts: dict[str, int] = {}
    for check in device.checks:
        counts[check.state] = counts.get(check.state, 0) + 1
    told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    judged = "" if device.judged else " (told, not judged)"
    name = "" if device.name == device.device else f" {device.name}"
    yield f"  {device.device}{name}{judged}: {told}"
    shown = list(_shown(device.checks, everything=bool(ui.verbosity)))
    limit = len(shown) if ui.verbosity else _SHOWN
    for check in shown[:limit]:
        yield f"    {_check(check)}"
    if len(shown) > limit:
        yield f"    and {len(shown) - limit} more; `-v` shows them"


def _shown(checks: Iterable[Check], *, everything: bool) -> Iterator[Check]:
    """What went wrong; of a training also what went right, since its figures are the answer."""
    for check in checks:
        if everything or check.state in _WRONG or (check.name.startswith("train/") and check.detail):
            yield check


def _check(check: Check) -> str:
    parts = [check.state, check.name, check.dtype]
    if check.error is not None and check.tolerance is not None:
        parts.append(f"error {check.error:.3g} (tolerance {check.tolerance:.3g})")
    if check.fault:
        parts.append(f"known fault {check.fault}")
    if check.detail:
        parts.append(check.detail)
    return "  ".join(part for part in parts if part)
