"""Probes the indexes once, in parallel and briefly, and says what the solver may count on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, field
from bnbenv.errors import ExternalError
from bnbenv.install.listing import PROJECT, Answer, IndexProblem, ask
from bnbenv.install.remembered import recall, remember
from bnbenv.install.sources import DEFAULT
from bnbenv.install.torch_wheels import candidate_builds, listed_builds, newer_release, read_wheel_name
from bnbenv.install.unreached import INDEX_INSTEAD
from bnbenv.install.uv_cache import cached_files
from bnbenv.install.uv_files import address
from bnbenv.judge.stack import Offers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from bnbenv.install.sources import Index, Sources
    from bnbenv.matrix.rows import TorchBuild


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """What the configured indexes have of torch.

    Attributes:
        problems: one for every index that cannot be used.
        unavailable: their names, and those that the configuration switches off.
        listed: index → (torch version, build, Python minor), for every index of the matrix that answered.
        builds: of wheelhouses and other places of the user's.
        tried: every index that was asked.
        newer: index of the matrix → the newest release that it lists, where the matrix knows none as new.
    """

    problems: tuple[IndexProblem, ...] = ()
    unavailable: frozenset[str] = frozenset()
    listed: Mapping[str, frozenset[tuple[str, str, str]]] = field(default_factory=dict)
    builds: tuple[TorchBuild, ...] = ()
    tried: tuple[Index, ...] = ()
    newer: Mapping[str, str] = field(default_factory=dict)

    def offers(self) -> Offers:
        """The same as the solver reads it."""
        return Offers(unavailable=self.unavailable, builds=self.builds, listed=self.listed)

    def nothing_serves(self, *, cpu: bool = False) -> ExternalError:
        """The error for the case that no index gives a torch that serves; it names every address tried.

        `cpu` says that nothing but a CPU build was asked for.
        """
        failed: dict[str, IndexProblem] = {}  # a mirror may stand for many indexes: one line an address
        for problem in self.problems:
            failed.setdefault(problem.url, problem)
        names = {problem.index for problem in self.problems}
        answered = [
            f"`{index.name}` at {address(index)} has {self._torches(index.name)}"
            for index in self.tried
            if index.name not in names
        ]
        codes = {problem.code for problem in self.problems}
        hints = {problem.hint for problem in self.problems}
        return ExternalError(
            f"no index that can be reached has a {'CPU build of torch' if cpu else 'torch'} "
            "that serves this machine:\n"
            + "\n".join([*(problem.message for problem in failed.values()), *answered]),
            # Those that answered have other builds: a repair may then go back to the torch of its lock.
            code=codes.pop() if len(codes) == 1 and not (cpu and answered) else "package-unavailable",
            # One cause for all, such as a proxy: what mends that.
            hint=hints.pop() if len(hints) == 1 and not answered else INDEX_INSTEAD,
        )

    def _torches(self, name: str) -> str:
        """What an index has of torch, in words; the newest few."""
        found = {(version, build) for version, build, _python in self.listed.get(name, ())}
        found |= {(build.version, build.build) for build in self.builds if build.index == name}
        shown = sorted(found, key=lambda one: tuple(map(int, re.findall(r"\d+", one[0]))), reverse=True)[:3]
        return (
            f"torch {', '.join(f'{version} ({build})' for version, build in shown)}" if shown else "no torch"
        )


def probe(
    sources: Sources,
    names: Iterable[str] | None = None,
    *,
    known: Sequence[TorchBuild] = (),
    all_names: Iterable[str] = (),
    environ: Mapping[str, str],
    timeout: float = 5.0,
    report: Callable[[str], None] | None = None,
    memory: Path | None = None,
) -> Availability:
    """Ask the indexes for torch: those named, and all that serve any package.

    Offline nothing is asked on the network: directories answer, and indexes have what uv's cache has.

    Args:
        sources: the configuration.
        names: which of the explicit indexes; by default all.
        known: the matrix's builds, from which the facts of a wheelhouse's wheels are taken.
        all_names: every index of the matrix; those that `sources` lacks are unavailable.
        environ: the caller's variables.
        timeout: seconds that an index has to answer.
        report: told what is asked.
        memory: bnbenv's cache directory, where the answers are kept for `recalled`.
    """
    import time

    answers = collect(sources, names, environ=environ, timeout=timeout, report=report)
    if memory is not None:
        remember(answers, sources, memory, environ=environ, now=time.time())
    return assemble(answers, sources, known=known, all_names=all_names)


def recalled(
    sources: Sources,
    *,
    memory: Path,
    environ: Mapping[str, str],
    known: Sequence[TorchBuild] = (),
    all_names: Iterable[str] = (),
) -> Availability | None:
    """What the last probe found, if it is younger than a day, with today's directories; uses no network.

    ``None`` where nothing is remembered; an index that was not asked then is believed to be complete.
    """
    import time

    answers = recall(sources, memory, environ=environ, now=time.time())
    if answers is None:
        return None
    kept = {answer.index for answer in answers}
    today = tuple(
        ask(index, sources, timeout=0, environ=environ)
        for index in sources.indexes
        if index.local and index.name not in kept
    )
    return assemble((*answers, *today), sources, known=known, all_names=all_names)


def collect(
    sources: Sources,
    names: Iterable[str] | None = None,
    *,
    environ: Mapping[str, str],
    timeout: float = 5.0,
    report: Callable[[str], None] | None = None,
) -> tuple[Answer, ...]:
    """The answers of the indexes, each address asked once."""
    from concurrent.futures import ThreadPoolExecutor

    wanted = None if names is None else frozenset(names)
    concerned = [
        index
        for index in sources.indexes
        if index.role != "explicit" or wanted is None or index.name in wanted
    ]
    asked = [index for index in concerned if index.local or not sources.offline]
    silent = [_from_cache(index, environ) for index in concerned if index not in asked]
    if not asked:
        return tuple(silent)
    # One address may carry every build of a family under several names.
    by_address: dict[tuple[str, bool], Index] = {}
    for index in asked:
        by_address.setdefault((address(index), index.flat), index)
    if report is not None and not sources.offline:
        report(f"asking {len(by_address)} index{'es' * (len(by_address) != 1)} for torch")
    with ThreadPoolExecutor(max_workers=min(16, len(by_address))) as pool:
        futures = {
            key: pool.submit(ask, index, sources, timeout=timeout, environ=environ)
            for key, index in by_address.items()
        }
        answers = {key: future.result() for key, future in futures.items()}
    return (*(_under_name(answers[address(index), index.flat], index.name) for index in asked), *silent)


def assemble(
    answers: Sequence[Answer],
    sources: Sources,
    *,
    known: Sequence[TorchBuild] = (),
    all_names: Iterable[str] = (),
) -> Availability:
    """What the answers mean; pure."""
    present = {index.name: index for index in sources.indexes}
    unavailable = {name for name in all_names if name not in present}
    if sources.default is None:
        unavailable.add(DEFAULT)
    problems: list[IndexProblem] = []
    newer: dict[str, str] = {}
    listed: dict[str, frozenset[tuple[str, str, str]]] = {}
    builds: list[TorchBuild] = []
    for answer in answers:
        index = present.get(answer.index)
        if index is None:
            continue
        if answer.problem is not None:
            problems.append(answer.problem)
            unavailable.add(answer.index)
            continue
        wheels = [wheel for file, size in answer.files if (wheel := read_wheel_name(file, size))]
        if index.role in {"explicit", "default"} and (release := newer_release(wheels, known)):
            newer[index.name] = release
        if index.role == "explicit":
            if index.shared:
                build = index.name.removeprefix(f"{index.family}-")
                wheels = [wheel for wheel in wheels if wheel.local == build]
            listed[index.name] = listed_builds(wheels, index.name, known)
        elif index.role == "default":
            listed[index.name] = listed_builds([w for w in wheels if w.local is None], index.name, known)
            builds += candidate_builds([w for w in wheels if w.local is not None], index.name, known)
        else:
            builds += candidate_builds(wheels, index.name, known)
    return Availability(
        problems=tuple(problems),
        newer=newer,
        unavailable=frozenset(unavailable),
        listed=listed,
        builds=tuple(builds),
        tried=tuple(present[answer.index] for answer in answers if answer.index in present),
    )


def _from_cache(index: Index, environ: Mapping[str, str]) -> Answer:
    """Offline, an index has what uv's cache has of it.

    The cache does not tell which other index a wheel came from; its local version does.
    """
    from bnbenv.install.uv import cache_directory

    cached = cached_files(cache_directory(environ), PROJECT, default=index.url is None)
    if index.role == "explicit" and index.family:
        build = index.name.removeprefix(f"{index.family}-")
        cached = tuple(file for file in cached if f"+{build}-" in file)
    elif index.url is None:
        # PyPI takes no local versions: such a wheel came from a directory of the user's.
        cached = tuple(file for file in cached if "+" not in file and "%2B" not in file)
    return Answer(index=index.name, files=tuple((file, None) for file in cached))


def _under_name(answer: Answer, name: str) -> Answer:
    if answer.index == name:
        return answer
    from bnbenv.dataclass import replace

    problem = answer.problem
    if problem is not None:
        message = problem.message.replace(f"`{answer.index}`", f"`{name}`", 1)
        problem = replace(problem, index=name, message=message)
    return replace(answer, index=name, problem=problem)
