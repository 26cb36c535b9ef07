"""`create --here`: add what a profile lacks to the running interpreter's environment, and undo it on failure.

Made for notebooks, whose kernel cannot move to another environment. The torch that is there stays, whatever
the profile would prefer. What is replaced is set aside first, by hard links beside it, and put back if uv
fails, if the self-test fails, or, by the next call, if this one was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.errors import EnvironmentProblem, Interrupted, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from bnbenv.env.base import Base
    from bnbenv.install.sources import Sources
    from bnbenv.install.uv import Uv
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.selftest.verdict import Verdict
    from bnbenv.workflows.choose import Choice
    from bnbenv.workflows.request import CreateRequest
    from bnbenv.workflows.voice import Voice

_JOURNAL = ".bnbenv-here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One package that will be added or replaced.

    Attributes:
        present: the version that is there, ``None`` where there is none.
    """

    name: str
    version: str
    present: str | None

    def __str__(self) -> str:
        return (
            f"{self.name} {self.present} → {self.version}" if self.present else f"{self.name} {self.version}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """The answer of `create --here`."""

    python: Path
    choice: Choice
    changes: tuple[Change, ...]
    verdict: Verdict | None


def running_python(environ: Mapping[str, str]) -> Path:
    """The interpreter that is meant by "here": the activated environment's, else the one that runs bnbenv."""
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if prefix := environ.get(variable):
            for candidate in (Path(prefix) / "bin" / "python", Path(prefix) / "python.exe"):
                if candidate.exists():
                    return candidate
    return Path(sys.executable)


def add_here(request: CreateRequest, voice: Voice, environ: Mapping[str, str], *, yes: bool = False) -> Added:
    """Add what is missing.

    Raises:
        UsageError: the interpreter has no torch, or its torch cannot serve the machine.
        ExternalError: uv failed; the environment is as it was.
        Interrupted: the user said no.
    """
    from dataclasses import replace

    from bnbenv.install.uv import find_uv
    from bnbenv.selftest.runner import run
    from bnbenv.workflows.choose import choose
    from bnbenv.workflows.create import tell_choice, write_lock

    python = running_python(environ)
    request = replace(request, wanted=replace(request.wanted, base=str(python)))
    uv = find_uv(environ, log=voice.ran)
    choice = choose(request, voice, environ)
    base = choice.base
    if base is None:
        raise AssertionError("a request with a base has none")
    tell_choice(choice, voice)
    site = _site_packages(base)
    heal(site, voice)
    lock = write_lock(request, choice, uv, voice, environ)
    changes = tuple(plan(lock, base))
    if not changes:
        voice.progress("nothing is missing")
    for change in changes:
        voice.progress(f"  {change}")
    verdict = None
    if not request.dry_run:
        if changes and not voice.confirm(f"change {len(changes)} packages of {base.prefix}?", yes=yes):
            raise Interrupted("nothing was changed")
        with set_aside(site, changes):
            _install(uv, python, lock, changes, choice.sources, environ, voice)
            verdict = run(
                python,
                level="quick",
                accelerator="cpu" if request.wanted.cpu else choice.target.accelerator,
                environ=environ,
                cwd=request.cwd,
                known_faults=choice.matrix.known_faults,
                cpu_flags=choice.host.target.cpu_flags,
                report=voice.progress,
            )
            if verdict.verdict == "failed":
                raise SelfTestFailedError(verdict)
    return Added(python=python, choice=choice, changes=changes, verdict=verdict)


class SelfTestFailedError(EnvironmentProblem):
    """The environment does not compute rightly after the change; it was undone."""

    exit_code = 1
    default_code = "self-test-failed"

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(
            "the environment does not compute rightly after the change; everything was put back",
            hint="bnbenv create qlora (an environment of its own)",
        )
        self.verdict = verdict


def plan(lock: Pylock, base: Base) -> Iterable[Change]:
    """The packages of the lock that the interpreter lacks, or has in another version."""
    for package in lock.packages:
        present = base.packages.get(package.name)
        if package.version is not None and present != package.version:
            yield Change(name=package.name, version=package.version, present=present)


@contextlib.contextmanager
def set_aside(site: Path, changes: tuple[Change, ...]) -> Iterator[None]:
    """Keep the files of what will be replaced, and put them back if the block fails.

    Raises:
        UsageError: the environment cannot be written.
    """
    if not changes:
        yield
        return
    journal = site / _JOURNAL
    try:
        journal.mkdir()
    except OSError as error:
        raise UsageError(
            f"`{site}` cannot be changed: {error.strerror}",
            hint="bnbenv create qlora --base $(command -v python) (an environment beside it)",
            code="permission",
        ) from error
    # RECORD paths may lead out of site-packages (`../../bin/tool`), so the kept files are numbered.
    kept: dict[str, list[str]] = {}
    number = 0
    for change in changes:
        kept[change.name] = [*_owned(site, change.name)] if change.present else []
        for relative in kept[change.name]:
            _link(site / relative, journal / f"{number}.kept")
            number += 1
    # Written last: without it nothing had been changed yet, and there is nothing to undo.
    (journal / "journal.json").write_text(json.dumps(kept), encoding="utf-8")
    try:
        yield
    except BaseException:
        _undo(site, journal)
        raise
    shutil.rmtree(journal, ignore_errors=True)


def heal(site: Path, voice: Voice) -> None:
    """Undo what a killed call left half done."""
    journal = site / _JOURNAL
    if journal.is_dir():
        voice.progress("an earlier call was interrupted here: putting everything back first")
        _undo(site, journal)


def _undo(site: Path, journal: Path) -> None:
    record = journal / "journal.json"
    if record.is_file():
        kept = json.loads(record.read_text(encoding="utf-8"))
        for name in kept:
            for relative in [*_owned(site, name)]:
                with contextlib.suppress(OSError):
                    (site / relative).unlink()
            for info in site.glob("*.dist-info"):
                if _normalised(info.name.partition("-")[0]) == name:
                    shutil.rmtree(info, ignore_errors=True)
        for number, relative in enumerate(path for files in kept.values() for path in files):
            target = site / relative
            target.unlink(missing_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(journal / f"{number}.kept", target)
    shutil.rmtree(journal, ignore_errors=True)


def _owned(site: Path, name: str) -> Iterable[str]:
    """The files of a distribution, by its RECORD, relative to site-packages; scripts beside it included."""
    import csv

    for info in site.glob("*.dist-info"):
        if _normalised(info.name.partition("-")[0]) != name:
            continue
        record = info / "RECORD"
        if not record.is_file():
            continue
        with record.open(encoding="utf-8", newline="") as stream:
            for row in csv.reader(stream):
                if row and (site / row[0]).is_file() and not os.path.isabs(row[0]):  # noqa: PTH117
                    yield row[0]


def _link(source: Path, target: Path) -> None:
    """A second name where the file system has them: installers unlink before they write, never in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _install(
    uv: Uv,
    python: Path,
    lock: Pylock,
    changes: tuple[Change, ...],
    sources: Sources,
    environ: Mapping[str, str],
    voice: Voice,
) -> None:
    from bnbenv.install.uv_files import uv_variables, uv_workspace
    from bnbenv.lockfile import pylock

    if not changes:
        return
    names = {change.name for change in changes}
    document = {**lock.document, "packages": [p for p in lock.document["packages"] if p["name"] in names]}
    with tempfile.TemporaryDirectory(prefix="bnbenv-") as scratch, uv_workspace(sources) as settings:
        part = Path(scratch) / "pylock.toml"
        pylock.write(part, pylock.from_document(document))
        uv.run(
            [
                "pip",
                "install",
                "--requirements",
                str(part),
                "--no-deps",
                "--python",
                str(python),
                "--break-system-packages",
                "--config-file",
                str(settings / "uv.toml"),
                "--preview-features",
                "pylock",
                *(["--offline"] if sources.offline else []),
            ],
            environ=environ,
            report=voice.progress,
            extra=uv_variables(sources, environ),
        )


def _site_packages(base: Base) -> Path:
    for path in base.paths:
        if path.name in {"site-packages", "dist-packages"} and base.prefix in path.parents:
            return path
    raise UsageError(f"`{base.python}` has no site-packages of its own", code="base-unusable")


def _normalised(name: str) -> str:
    import re

    return re.sub(r"[-_.]+", "-", name).lower()
