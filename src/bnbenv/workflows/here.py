"""`create --here`: add what a profile lacks to the running interpreter's environment, and undo it on failure.

Made for notebooks, whose kernel cannot move to another environment. The torch that is there stays, whatever
the profile would prefer. The change is the one that `repair` makes in place: what comes is unpacked beside
the environment, what goes is renamed aside, and put back if uv fails, if the self-test fails, or, by the next
call, if this one was killed.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.errors import EnvironmentProblem, Interrupted, UsageError
from bnbenv.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bnbenv.env.base import Base
    from bnbenv.install.uv import Uv
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.selftest.verdict import Verdict
    from bnbenv.workflows.choose import Choice
    from bnbenv.workflows.environment import Located
    from bnbenv.workflows.mend import Change
    from bnbenv.workflows.request import CreateRequest
    from bnbenv.workflows.voice import Voice

_BESIDE = "bnbenv create qlora --base $(command -v python) (an environment beside it)"


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
            # POSIX, a venv on Windows, and conda there
            for candidate in ("bin/python", "Scripts/python.exe", "python.exe"):
                if (python := Path(prefix) / candidate).exists():
                    return python
    return Path(sys.executable)


def add_here(request: CreateRequest, voice: Voice, environ: Mapping[str, str], *, yes: bool = False) -> Added:
    """Add what is missing.

    Raises:
        UnsolvableError: code ``hazard``: a package that is asked for would break the others.
        EnvironmentProblem: the interpreter is the system's package manager's.
        UsageError: the interpreter has no torch, its torch cannot serve the machine, or its environment
            cannot be written, or lies on two disks.
        ExternalError: uv failed; the environment is as it was.
        SelfTestFailedError: it does not compute rightly; the environment is as it was.
        Interrupted: the user said no.
    """
    from bnbenv.dataclass import replace
    from bnbenv.env import transaction
    from bnbenv.env.base import read_base
    from bnbenv.install.uv import find_uv
    from bnbenv.workflows.choose import choose
    from bnbenv.workflows.create import admit_brought, admit_named, tell_choice, write_lock
    from bnbenv.workflows.environment import Located, heal, holding
    from bnbenv.workflows.toolchain import require_toolchain

    python = running_python(environ)
    before = read_base(python, environ)
    site = _site(before)
    located = Located(directory=before.prefix, kind="system", why="the running interpreter")
    _refuse_managed(located, environ)
    _refuse_other_disk(before.prefix, site)
    with contextlib.ExitStack() as stack:
        held: tuple[int, ...] = ()
        if not request.dry_run:
            if not (os.access(site, os.W_OK) and os.access(before.prefix, os.W_OK)):
                raise _read_only(site)
            held = stack.enter_context(holding(located, "create --here", voice, environ)).pass_fds
            heal(located, voice)
        elif transaction.is_half_done(before.prefix):
            voice.progress("an earlier call was interrupted here: without --dry-run it would be undone first")
        if before.torch is None:
            raise UsageError(
                f"`{python}` has no torch to add to",
                hint="activate the environment that has torch and call again, "
                "or bnbenv create qlora (an environment of its own)",
                code="base-unusable",
            )
        request = replace(request, wanted=replace(request.wanted, base=str(python)))
        uv = find_uv(environ, log=voice.ran)
        otherwise = "--cpu, or the same line where the GPU can be used"
        choice = choose(request, voice, environ, command=None, otherwise=otherwise)
        base = choice.base
        if base is None:
            raise AssertionError("a request with a base has none")
        tell_choice(choice, voice)
        require_toolchain(request, choice, voice, environ, torch_given=True)
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
            if changes and not voice.confirm(
                f"change {counted(len(changes), 'package')} of {base.prefix}?", yes=yes
            ):
                raise Interrupted("nothing was changed")
            verdict = _change(
                request, choice, lock, changes, base=base, uv=uv, voice=voice, environ=environ, held=held
            )
    return Added(python=python, choice=choice, changes=changes, verdict=verdict)


def _refuse_managed(located: Located, environ: Mapping[str, str]) -> None:
    from bnbenv.install.pip_config import flag
    from bnbenv.install.settings import Setting
    from bnbenv.workflows.environment import refuse_managed

    name = "PIP_BREAK_SYSTEM_PACKAGES"  # images set it for whoever means to change theirs
    value = environ.get(name)
    if not (value and flag(Setting(key="break-system-packages", value=value, origin=name))):
        refuse_managed(located)


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
    from bnbenv.env.installed import read_installed
    from bnbenv.env.layout import Layout
    from bnbenv.selftest.runner import run
    from bnbenv.workflows.mend import mend_packages, part_of
    from bnbenv.workflows.order import Means

    proven: list[Verdict] = []

    def prove() -> None:
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
        proven.append(verdict)

    if changes:
        names = {change.name for change in changes}
        part = part_of(lock, names, names, base.packages, choice.sources, link_mode=request.link_mode)
        mend_packages(
            read_installed(base.prefix, interpreter=base.python),
            base.python,
            part,
            prove,
            Means(uv=uv, voice=voice, environ=environ),
            pass_fds=held,
        )
    else:
        prove()
    return proven[0]


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
    from bnbenv.doctor.plan import same_version
    from bnbenv.workflows.mend import Change

    for package in lock.packages:
        present = base.packages.get(package.name)
        if package.version is None or (present is not None and same_version(present, package.version)):
            continue
        yield Change(name=package.name, version=package.version, present=present)


def unreplaceable(base: Base) -> frozenset[str]:
    """Packages that stay whatever their version: no installer could replace, or outdo, what is there."""
    order = {path: number for number, path in enumerate(base.paths)}
    own = min((order[site] for site in base.sites if site in order), default=0)
    in_front = {name for name, place in base.locations.items() if order.get(place, own) < own}
    return base.unmanaged | in_front


def _site(base: Base) -> Path:
    if base.sites:
        return base.sites[0]
    raise UsageError(
        f"`{base.python}` has no site-packages of its own",
        hint="bnbenv create qlora (an environment of its own)",
        code="base-unusable",
    )


def _refuse_other_disk(prefix: Path, site: Path) -> None:
    """Stop where packages stand on another file system than the rest: nothing is renamed across two."""
    from bnbenv.env.generation import python_in

    for place in (site, python_in(prefix).parent):
        with contextlib.suppress(FileNotFoundError):
            if place.stat().st_dev != prefix.stat().st_dev:
                raise UsageError(
                    f"`{place}` is on another disk than `{prefix}`: a change is made, and can be undone, "
                    "by renames, and none leads from one disk to another",
                    hint=_BESIDE,
                    code="base-unusable",
                )


def _read_only(site: Path) -> UsageError:
    return UsageError(
        f"`{site}` cannot be changed: it is read-only for this user", hint=_BESIDE, code="permission"
    )
