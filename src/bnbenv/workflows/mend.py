"""Mend an environment in place: stage what comes, set aside what goes, prove, or put everything back."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.errors import ExternalError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from bnbenv.doctor.plan import Mode, Plan
    from bnbenv.env.installed import Distribution, Installed
    from bnbenv.env.transaction import Swap
    from bnbenv.install.sources import Sources
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.machine.host import Host
    from bnbenv.matrix.rows import TorchBuild
    from bnbenv.workflows.choose import Choice
    from bnbenv.workflows.doctor import Examined
    from bnbenv.workflows.order import Means
    from bnbenv.workflows.request import CreateRequest, Wanted
    from bnbenv.workflows.voice import Voice

_CODE = re.compile(r"\.(py|pyi|pyc|pyo|pyd|so(\.\d+)*|dll|dylib)$", re.IGNORECASE)
_NATIVE_BITSANDBYTES = re.compile(r"libbitsandbytes[\w.]*\.(so|dll|dylib)")
_TOOLS = frozenset({"pip", "setuptools", "wheel", "bnbenv", "uv"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One package that is installed again, or in another version.

    Attributes:
        present: the version that is there, ``None`` where there is none.
    """

    name: str
    version: str
    present: str | None

    def __str__(self) -> str:
        if self.present is None:
            return f"{self.name} {self.version}"
        if self.present == self.version:
            return f"{self.name} {self.version}, again"
        return f"{self.name} {self.present} → {self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The part of a lock that is installed.

    Attributes:
        lock: holds exactly what changes.
        sources: where uv reaches it.
        link_mode: how its files come from uv's cache; ``None`` where that is found out by trying.
    """

    lock: Pylock
    changes: tuple[Change, ...]
    sources: Sources
    link_mode: str | None = None


def choose_part(
    before: Examined,
    plan: Plan,
    stored: Pylock | None,
    asked: CreateRequest,
    mode: Mode,
    means: Means,
) -> Part | None:
    """Which files the plan's steps need, locked with their hashes; ``None`` where it needs none.

    What no step is about keeps its version as long as anything can be found that way.

    Args:
        stored: the lock that the environment was built from, where there is one.

    Raises:
        UnsolvableError, ExternalError: nothing serves, or it cannot be reached.
    """
    again = plan.subjects("reinstall", "install")
    chosen = plan.subjects("choose")
    if not again and not chosen:
        return None
    present = before.installed.versions
    environ = means.environ
    if stored is not None and not chosen:
        sources = _sources(asked, environ)
        return part_of(stored, again, again, present, sources, link_mode=asked.link_mode)
    wanted = _wanted(before, again, chosen, asked.wanted)
    choice = None
    if chosen or "torch" in again:
        choice = _choose(wanted, asked, mode, means.voice, environ)
    sources = choice.sources if choice else _sources(asked, environ)
    torch = choice.solution.stack.torch if choice and choice.base is None else None
    requirements = _requirements(before.installed, again, chosen, choice)
    lock = _compile(before, requirements, torch, sources, means)
    names = {
        package.name
        for package in lock.packages
        if package.version and not _same(present.get(package.name), package.version)
    }
    return part_of(lock, names | again, again, present, sources, link_mode=asked.link_mode)


def _wanted(before: Examined, again: frozenset[str], chosen: frozenset[str], given: Wanted) -> Wanted:
    """A request that leaves open what is chosen, and pins what is there."""
    installed = before.installed
    torch, bitsandbytes = before.torch, installed.find("bitsandbytes")
    wanted = replace(
        given,
        profile="qlora" if installed.find("peft") else "inference",
        python=installed.minor,
    )
    if "torch" not in chosen and torch is not None:
        if "torch" in again:
            cuda = None if given.cpu else torch.cuda or None
            wanted = replace(wanted, torch=f"=={torch.version}", cuda=cuda)
        else:
            wanted = replace(wanted, base=str(before.located.python))
    if not {"bitsandbytes", "torch"} & chosen and bitsandbytes is not None:
        wanted = replace(wanted, bitsandbytes=f"=={bitsandbytes.version}")
    return wanted


def _choose(
    wanted: Wanted, asked: CreateRequest, mode: Mode, voice: Voice, environ: Mapping[str, str]
) -> Choice:
    """The judge's choice; another torch only where the one that is there cannot serve, and may go."""
    from bnbenv.workflows.choose import choose
    from bnbenv.workflows.create import tell_choice

    try:
        choice = choose(replace(asked, wanted=wanted), voice, environ)
    except UsageError as problem:
        if problem.code != "base-unusable" or mode == "keep-torch":
            raise
        voice.progress(f"torch cannot stay: {problem.message}")
        choice = choose(replace(asked, wanted=replace(wanted, base=None, bitsandbytes=None)), voice, environ)
    tell_choice(choice, voice)
    return choice


def _requirements(
    installed: Installed, again: frozenset[str], chosen: frozenset[str], choice: Choice | None
) -> dict[str, str]:
    """Name → requirement, of what is asked for by itself."""
    from bnbenv.torch_family import is_torch_family

    found: dict[str, str] = {}
    for name in again:
        there = installed.find(name)
        if name == "torch":
            continue  # pinned to its index, by the choice
        if there is not None and there.version:
            found[name] = f"{name}=={there.version}"
        else:
            found[name] = _needed(installed, name)
    if choice is None:
        return found
    stack = choice.solution.stack
    if stack.bitsandbytes is not None and (
        {"bitsandbytes", "torch"} & chosen or installed.find("bitsandbytes")
    ):
        found["bitsandbytes"] = f"bitsandbytes=={stack.bitsandbytes.version}"
    if "hugging-face" in chosen:
        for name, specifier in stack.packages.items():
            if installed.find(name) and not is_torch_family(name) and name != "bitsandbytes":
                found[name] = f"{name}{specifier}"
    return found


def _needed(installed: Installed, name: str) -> str:
    """How the packages that are there ask for one that is not."""
    from bnbenv.env.additions import requirements_of
    from bnbenv.install.compile_inputs import name_of

    for distribution in installed.distributions:
        for line in requirements_of(distribution):
            text = line.partition(";")[0].strip()
            if name_of(text) == name and "extra ==" not in line:
                return text
    return name


def _compile(
    before: Examined,
    requirements: Mapping[str, str],
    torch: TorchBuild | None,
    sources: Sources,
    means: Means,
) -> Pylock:
    """Lock it; what is there stays, then what is released with transformers may move, then all may."""
    from bnbenv.env.base import RELEASED_WITH_TRANSFORMERS
    from bnbenv.install.compile import CompileRequest, compile_lock
    from bnbenv.lockfile import pylock
    from bnbenv.torch_family import TORCH_FAMILY, is_torch_family

    installed = before.installed
    family = {name for name in installed.versions if is_torch_family(name)} | TORCH_FAMILY
    kept = {
        name: f"{name}=={version.partition('+')[0]}"
        for name, version in installed.versions.items()
        if name not in family and name not in _TOOLS and name not in requirements and version
    }
    some = {name: line for name, line in kept.items() if name not in RELEASED_WITH_TRANSFORMERS}
    rounds = tuple(dict.fromkeys((tuple(kept.values()), tuple(some.values()), ())))
    minor = installed.minor or ""
    with tempfile.TemporaryDirectory(prefix="bnbenv-") as scratch:
        for number, constraints in enumerate(rounds, start=1):
            try:
                compiled = compile_lock(
                    means.uv,
                    CompileRequest(
                        python=minor,
                        requirements=tuple(requirements.values()),
                        torch=torch,
                        interpreter=before.located.python,
                        constraints=constraints,
                        provided=frozenset() if torch else frozenset(family - set(requirements)),
                    ),
                    sources,
                    Path(scratch) / "pylock.toml",
                    environ=means.environ,
                    report=means.voice.progress if number == len(rounds) else None,
                )
            except ExternalError as problem:  # noqa: PERF203 - three rounds at most
                if not problem.no_versions or number == len(rounds):
                    raise
            else:
                return pylock.read(compiled.path)
    raise AssertionError("the last round answers or fails")


def part_of(
    lock: Pylock,
    names: Collection[str],
    again: Collection[str],
    present: Mapping[str, str],
    sources: Sources,
    *,
    link_mode: str,
) -> Part:
    """The named entries of a lock; `link_mode` is what was asked for, or ``auto``.

    Raises:
        ExternalError: a package that must be installed again is in no index.
    """
    from bnbenv.install.link_mode import wanted_link_mode
    from bnbenv.lockfile import pylock

    entries = [entry for entry in lock.document["packages"] if entry["name"] in names]
    if missing := set(again) - {str(entry["name"]) for entry in entries}:
        raise ExternalError(
            f"{', '.join(sorted(missing))} must be installed again and is in no index or lock",
            hint="install it again by hand, from where it came",
            code="package-unavailable",
        )
    changes = tuple(
        Change(
            name=str(entry["name"]),
            version=str(entry.get("version", "")),
            present=present.get(str(entry["name"])),
        )
        for entry in entries
    )
    part = pylock.from_document({**lock.document, "packages": entries}, origin=lock.origin)
    mode = wanted_link_mode(link_mode, sources.link_mode)
    return Part(lock=part, changes=changes, sources=sources, link_mode=mode)


def mend_packages(
    installed: Installed,
    python: Path,
    part: Part,
    prove: Callable[[], None],
    means: Means,
    *,
    pass_fds: tuple[int, ...],
) -> None:
    """Install the part, prove it, and on any failure leave every file as it was.

    Args:
        python: the environment's interpreter.
        prove: raises where the environment, with the part in it, is not as it should be.

    Raises:
        ExternalError: uv, the disk or the network failed; everything is as it was.
        BnbenvError: what `prove` raises; everything is as it was.
    """
    from bnbenv.env.transaction import replacing, staging

    prefix = installed.prefix
    staged = staging(prefix)
    try:
        _stage(part, staged, python, means, pass_fds=pass_fds)
        swap = _swap(installed, [change.name for change in part.changes], staged)
        with replacing(prefix, _with_guard(prefix, staged, swap)):
            prove()
    finally:
        _clear(prefix)


def mend_guard(prefix: Path, prove: Callable[[], None]) -> None:
    """Write anew what is gone of the guard, prove it, and on any failure leave every file as it was.

    Raises:
        ExternalError: the disk failed; everything is as it was.
        BnbenvError: what `prove` raises; everything is as it was.
    """
    from bnbenv.env.transaction import Swap, replacing, staging

    staged = staging(prefix)
    try:
        with replacing(prefix, _with_guard(prefix, staged, Swap(aside=frozenset(), place={}))):
            prove()
    finally:
        _clear(prefix)


def _with_guard(prefix: Path, staged: Path, swap: Swap) -> Swap:
    """The change, after which the guard stands whole: an installer writes pip's scripts anew."""
    import shutil

    from bnbenv.env import guard

    texts = guard.standing_files(prefix)
    changed = {*swap.aside, *swap.place.values()}
    directory = staged / "guard"
    directory.mkdir()
    place = {now: final for now, final in swap.place.items() if final not in texts}
    for program, kept in guard.displaced(prefix).items() if texts else ():
        place[Path(shutil.copy2(program, directory / "own"))] = kept
    for final, text in texts.items():
        if final in changed or not final.is_file() or final.read_bytes() != text:
            now = directory / final.name
            now.write_bytes(text)
            now.chmod(guard.mode_of(final))
            place[now] = final
    return replace(swap, place=place)


def _stage(
    part: Part,
    staged: Path,
    python: Path,
    means: Means,
    *,
    pass_fds: tuple[int, ...],
) -> None:
    """Unpack what will come, and compare it with RECORD: uv's cache itself may be damaged."""
    import shutil

    from bnbenv.env.record import check_record
    from bnbenv.install.build import stage
    from bnbenv.install.link_mode import choose_link_mode
    from bnbenv.install.uv import cache_directory
    from bnbenv.lockfile import pylock

    mode = choose_link_mode(cache_directory(means.environ), staged, requested=part.link_mode).mode
    with tempfile.TemporaryDirectory(prefix="bnbenv-") as scratch:
        file = Path(scratch) / "pylock.toml"
        pylock.write(file, part.lock)
        damaged: tuple[str, ...] = ()
        for _ in range(2):
            stage(
                means.uv,
                file,
                staged,
                python,
                part.sources,
                mode,
                environ=means.environ,
                refresh=damaged,
                pass_fds=pass_fds,
                report=means.voice.progress,
            )
            damaged = tuple(sorted({fault.package for fault in check_record(staged)}))
            if not damaged:
                return
            names = ", ".join(damaged)
            means.voice.progress(f"uv's cache holds damaged files of {names}: fetching them anew")
            shutil.rmtree(staged)
            staged.mkdir()
    raise ExternalError(
        f"files of {', '.join(damaged)} differ from what their packages record, also when fetched anew",
        hint="uv cache clean " + " ".join(damaged),
        code="corrupt-cache",
    )


def _swap(installed: Installed, names: Iterable[str], staged: Path) -> Swap:
    """What goes and what comes, file by file: what no package owns stays where it is."""
    from bnbenv.env.additions import owned_files
    from bnbenv.env.installed import read_installed
    from bnbenv.env.transaction import Swap

    coming = read_installed(staged)
    aside: set[Path] = set()
    for name in names:
        copies = [it for it in installed.copies(name) if _is_below(it.location, installed.prefix)]
        for copy in copies:
            aside |= {Path(text) for text in owned_files(copy)}
        new = coming.find(name)
        site = copies[0].location if copies else installed.site_packages[0]
        if new is not None and (len(copies) != 1 or not _has_files(copies[0])):
            aside |= set(_unrecorded(new, site))
        if name == "bitsandbytes":
            aside |= {
                path
                for path in (site / "bitsandbytes").glob("lib*")
                if _NATIVE_BITSANDBYTES.fullmatch(path.name)
            }
    site = installed.site_packages[0]
    place: dict[Path, Path] = {}
    for path in staged.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            continue
        if path.name == ".lock" and path.parent == staged:
            continue
        inside = next((it for it in coming.site_packages if it in path.parents), None)
        final = site / path.relative_to(inside) if inside else installed.prefix / path.relative_to(staged)
        place[path] = final
    return Swap(
        aside=frozenset(path for path in aside if _is_below(path, installed.prefix) and not path.is_dir()),
        place=place,
    )


def _has_files(distribution: Distribution) -> bool:
    from bnbenv.env.additions import record_rows

    return bool(record_rows(distribution))


def _unrecorded(new: Distribution, site: Path) -> Iterable[Path]:
    """The code where a package stands whose RECORD is lost: in the directories that the new one has too."""
    from bnbenv.env.additions import record_rows

    rows = record_rows(new)
    known = {os.path.normpath(site / row) for row in rows}
    tops = {row.split("/", 1)[0] for row in rows if "/" in row and not row.startswith("..")}
    for top in tops:
        if top.endswith(".dist-info"):
            continue
        for path in (site / top).rglob("*"):
            if not path.is_dir() and (_CODE.search(path.name) or str(path) in known):
                yield path


def _clear(prefix: Path) -> None:
    """What was staged goes, unless a journal says that it is needed to put things back."""
    import shutil

    from bnbenv.env.transaction import is_half_done, work_directory

    if not is_half_done(prefix):
        shutil.rmtree(work_directory(prefix), ignore_errors=True)


def _same(present: str | None, wanted: str) -> bool:
    from bnbenv.doctor.plan import same_version

    return present is not None and same_version(present, wanted)


def _is_below(path: Path, prefix: Path) -> bool:
    return prefix in path.parents


def _sources(asked: CreateRequest, environ: Mapping[str, str]) -> Sources:
    from bnbenv.install.sources import read_sources
    from bnbenv.matrix.load import load

    return read_sources(
        environ=environ,
        cwd=asked.cwd,
        index_rows=load("indexes").indexes,
        mirrors=asked.mirrors,
        offline=asked.offline,
    )


def mend_venv(
    before: Examined,
    host: Host,
    means: Means,
    *,
    pass_fds: tuple[int, ...],
) -> None:
    """Give a venv a working interpreter again, and let its scripts name the place where it stands.

    Raises:
        ExternalError: code ``python-missing``; no interpreter of its minor version is on the machine.
    """
    from bnbenv.env.generation import python_in
    from bnbenv.env.transaction import Swap, replacing, staging
    from bnbenv.install.build import create_venv
    from bnbenv.workflows.choose import find_interpreter

    installed = before.installed
    prefix, minor = installed.prefix, installed.minor
    python = find_interpreter(host, minor, outside=prefix) if minor else None
    if minor is None or python is None:
        raise ExternalError(
            f"no Python {minor or '(version unknown)'} is on this machine to mend `{prefix}` with",
            hint=f"uv python install {minor}" if minor else "bnbenv create qlora",
            code="python-missing",
        )
    staged = staging(prefix)
    try:
        create_venv(
            means.uv,
            staged / "venv",
            python,
            environ=means.environ,
            prompt=prefix.name,
            system_site_packages=installed.system_site,
            pass_fds=pass_fds,
        )
        place = {staged / "venv" / "pyvenv.cfg": prefix / "pyvenv.cfg"}
        fresh, scripts = python_in(staged / "venv").parent, python_in(prefix).parent
        place |= {path: scripts / path.name for path in fresh.glob("python*")}
        place |= _pointed_scripts(prefix, staged)
        with replacing(prefix, Swap(aside=frozenset(), place=place)):
            _check_interpreter(before.located.python, minor)
        means.voice.progress(f"the interpreter is {python} again")
    finally:
        _clear(prefix)


def _pointed_scripts(prefix: Path, staged: Path) -> dict[Path, Path]:
    """New copies of the files that name a place, where it is not the one at which the environment stands.

    Those that name the right one may still begin with a line that no system can start.
    """
    from bnbenv.env import guard
    from bnbenv.env.generation import python_in
    from bnbenv.env.scripts import pointed

    scripts = python_in(prefix).parent
    old = _named_place(scripts) or str(prefix)
    texts = {
        script: pointed(script.read_bytes(), old, str(prefix))
        for script in sorted(scripts.iterdir())
        if script.is_file() and not script.is_symlink()
    }
    texts |= guard.placed_files(prefix)
    directory = staged / "scripts"
    directory.mkdir()
    found: dict[Path, Path] = {}
    for path, text in texts.items():
        if text != path.read_bytes():
            (directory / path.name).write_bytes(text)
            (directory / path.name).chmod(path.stat().st_mode)
            found[directory / path.name] = path
    return found


def _named_place(scripts: Path) -> str | None:
    """The environment that the activation script is for."""
    import shlex

    try:
        text = (scripts / "activate").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    for match in re.finditer(r"^\s*VIRTUAL_ENV=(['\"/].*)", text, re.MULTILINE):
        with contextlib.suppress(ValueError):
            return next(iter(shlex.split(match[1])), None)
    return None


def _check_interpreter(python: Path, minor: str) -> None:
    import subprocess

    question = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [str(python), "-I", "-B", "-c", question], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ExternalError(f"`{python}` does not run: {error}", code="python-missing") from error
    if done.stdout.strip() != minor:
        raise ExternalError(
            f"`{python}` does not run as Python {minor}: {(done.stderr or done.stdout).strip()[-200:]}",
            code="python-missing",
        )
