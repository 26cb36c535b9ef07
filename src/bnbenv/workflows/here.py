"""`create --here`: add what a profile lacks to the running interpreter's environment, and undo it on failure.

Made for notebooks, whose kernel cannot move to another environment. The torch that is there stays, whatever
the profile would prefer. What is replaced is set aside first, by hard links beside it, and put back if uv
fails, if the self-test fails, or, by the next call, if this one was killed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.env.aside import is_half_done, put_back, refused, set_aside
from bnbenv.errors import EnvironmentProblem, Interrupted, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bnbenv.env.base import Base
    from bnbenv.install.sources import Sources
    from bnbenv.install.uv import Uv
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.selftest.verdict import Verdict
    from bnbenv.workflows.choose import Choice
    from bnbenv.workflows.request import CreateRequest
    from bnbenv.workflows.voice import Voice

# What wheels install beside site-packages: commands and data.
_OUTSIDE_PACKAGES = frozenset({"bin", "Scripts", "etc", "include", "lib", "man", "share"})


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
        UnsolvableError: code ``hazard``: a package that is asked for would break the others.
        UsageError: the interpreter has no torch, its torch cannot serve the machine, or its environment
            cannot be written.
        ExternalError: uv failed; the environment is as it was.
        SelfTestFailedError: it does not compute rightly; the environment is as it was.
        Interrupted: the user said no.
    """
    from dataclasses import replace

    from bnbenv.env.base import read_base
    from bnbenv.env.locking import hold
    from bnbenv.install.uv import find_uv
    from bnbenv.workflows.choose import choose
    from bnbenv.workflows.create import admit_brought, admit_named, tell_choice, write_lock

    python = running_python(environ)
    before = read_base(python, environ)
    site = _site(before)
    with contextlib.ExitStack() as stack:
        held: tuple[int, ...] = ()
        if not request.dry_run:
            if not os.access(site, os.W_OK):
                raise refused(site, "it is read-only for this user")
            command = "bnbenv create --here"
            held = stack.enter_context(
                hold(_lock_file(site, environ), voice.progress, command=command)
            ).pass_fds
        heal(site, voice, dry_run=request.dry_run)
        if before.torch is None:
            raise UsageError(
                f"`{python}` has no torch to add to",
                hint="activate the environment that has torch and call again, "
                "or bnbenv create qlora (an environment of its own)",
                code="base-unusable",
            )
        request = replace(request, wanted=replace(request.wanted, base=str(python)))
        uv = find_uv(environ, log=voice.ran)
        choice = choose(request, voice, environ)
        base = choice.base
        if base is None:
            raise AssertionError("a request with a base has none")
        tell_choice(choice, voice)
        keep = unreplaceable(base)
        request = admit_named(request, choice)
        lock = write_lock(request, choice, uv, voice, environ, keep=keep)
        request, lock = admit_brought(request, choice, lock)
        changes = tuple(plan(lock, base))
        if not changes:
            voice.progress("nothing is missing")
        for change in changes:
            voice.progress(f"  {change}")
        verdict = None
        if not request.dry_run:
            if changes and not voice.confirm(f"change {len(changes)} packages of {base.prefix}?", yes=yes):
                raise Interrupted("nothing was changed")
            verdict = _change(
                request, choice, lock, changes, base=base, uv=uv, voice=voice, environ=environ, held=held
            )
    return Added(python=python, choice=choice, changes=changes, verdict=verdict)


def _change(
    request: CreateRequest,
    choice: Choice,
    lock: Pylock,
    changes: tuple[Change, ...],
    *,
    base: Base,
    uv: Uv,
    voice: Voice,
    environ: Mapping[str, str],
    held: tuple[int, ...],
) -> Verdict:
    """Install and prove, or leave every file as it was."""
    from bnbenv.env.layout import Layout
    from bnbenv.selftest.runner import run

    with contextlib.ExitStack() as stack:
        if changes:
            with tempfile.TemporaryDirectory(prefix="bnbenv-") as scratch:
                # A trial elsewhere tells which files will be written, and leaves nothing to be fetched later.
                trial = Path(scratch) / "trial"
                install = _Installer(uv=uv, base=base, lock=lock, changes=changes, sources=choice.sources)
                install(environ, ["--target", str(trial)], voice)
                written = files_of_trial(trial, base)
            stack.enter_context(
                set_aside(_site(base), replaced=replaced_files(base, changes), written=written)
            )
            install(environ, ["--break-system-packages"], voice, pass_fds=held)
        verdict = run(
            base.python,
            level="quick",
            accelerator="cpu" if request.wanted.cpu else choice.target.accelerator,
            environ=environ,
            cwd=request.cwd,
            known_faults=choice.matrix.known_faults,
            cpu_flags=choice.host.target.cpu_flags,
            report=voice.progress,
            bytecode=Layout.find(environ).bytecode,
            pass_fds=held,
        )
        if verdict.verdict == "failed":
            raise SelfTestFailedError(verdict)
    return verdict


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


def unreplaceable(base: Base) -> frozenset[str]:
    """Packages that stay whatever their version: no installer could replace, or outdo, what is there."""
    order = {path: number for number, path in enumerate(base.paths)}
    own = min((order[site] for site in base.sites if site in order), default=0)
    in_front = {name for name, place in base.locations.items() if order.get(place, own) < own}
    return base.unmanaged | in_front


def replaced_files(base: Base, changes: Iterable[Change]) -> set[Path]:
    """The files of what will be replaced, by their RECORDs; scripts outside site-packages included."""
    import csv

    from bnbenv.env.installed import normalized

    names = {change.name for change in changes if change.present}
    files: set[Path] = set()
    for site in base.sites:
        for info in site.glob("*.dist-info"):
            record = info / "RECORD"
            if normalized(info.name.partition("-")[0]) not in names or not record.is_file():
                continue
            with record.open(encoding="utf-8", newline="") as stream:
                rows = [row[0] for row in csv.reader(stream) if row]
            files |= {Path(os.path.normpath(site / row)) for row in rows}
            files |= {path for path in info.rglob("*") if path.is_file()}
    return files


def files_of_trial(trial: Path, base: Base) -> set[Path]:
    """Where the files of a `--target` installation will stand in the environment.

    A trial puts commands and data beside the packages; a name that fits both is counted at both places,
    which is harmless: what is not there needs no undoing.
    """
    files: set[Path] = set()
    for path in trial.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            continue
        relative = path.relative_to(trial)
        files |= {site / relative for site in base.sites}
        if len(relative.parts) > 1 and relative.parts[0] in _OUTSIDE_PACKAGES:
            files.add(base.prefix / relative)
            if base.scripts and relative.parts[0] in {"bin", "Scripts"}:
                files.add(base.scripts / Path(*relative.parts[1:]))
    return files


def heal(site: Path, voice: Voice, *, dry_run: bool = False) -> None:
    """Undo what a killed call left half done."""
    if not is_half_done(site):
        return
    if dry_run:
        voice.progress("an earlier call was interrupted here: without --dry-run it would be undone first")
        return
    voice.progress("an earlier call was interrupted here: putting everything back first")
    put_back(site)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Installer:
    """uv, told to install the part of a lock that changes."""

    uv: Uv
    base: Base
    lock: Pylock
    changes: tuple[Change, ...]
    sources: Sources

    def __call__(
        self,
        environ: Mapping[str, str],
        where: list[str],
        voice: Voice,
        *,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        from bnbenv.install.uv_files import uv_variables, uv_workspace
        from bnbenv.lockfile import pylock

        names = {change.name for change in self.changes}
        document = {
            **self.lock.document,
            "packages": [package for package in self.lock.document["packages"] if package["name"] in names],
        }
        with tempfile.TemporaryDirectory(prefix="bnbenv-") as scratch, uv_workspace(self.sources) as settings:
            part = Path(scratch) / "pylock.toml"
            pylock.write(part, pylock.from_document(document))
            self.uv.run(
                [
                    "pip",
                    "install",
                    "--requirements",
                    str(part),
                    "--no-deps",
                    "--python",
                    str(self.base.python),
                    *where,
                    "--config-file",
                    str(settings / "uv.toml"),
                    "--preview-features",
                    "pylock",
                    *(["--offline"] if self.sources.offline else []),
                ],
                environ=environ,
                pass_fds=pass_fds,
                report=voice.progress,
                extra=uv_variables(self.sources, environ),
            )


def _site(base: Base) -> Path:
    if base.sites:
        return base.sites[0]
    raise UsageError(f"`{base.python}` has no site-packages of its own", code="base-unusable")


def _lock_file(site: Path, environ: Mapping[str, str]) -> Path:
    """Not in the environment itself, where it would stay behind."""
    import hashlib

    from bnbenv.env.layout import Layout

    key = hashlib.sha256(str(site.resolve()).encode()).hexdigest()[:12]
    return Layout.find(environ).home / "here" / f"{key}.lock"
