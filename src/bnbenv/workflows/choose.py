"""From a request to a stack: probe the machine, ask the indexes, let the judge choose."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass, replace
from bnbenv.errors import ExternalError, UnsolvableError, UsageError
from bnbenv.home import expanded
from bnbenv.judge.candidates import without_accelerator
from bnbenv.judge.stack import Offers, Request, Solution, Unsolvable
from bnbenv.units import CudaVersion, DottedVersion, minor_release
from bnbenv.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bnbenv.env.base import Base
    from bnbenv.env.state import State
    from bnbenv.install.availability import Availability
    from bnbenv.install.sources import Sources
    from bnbenv.judge.stack import Stack
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.machine.host import Host
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import TorchBuild
    from bnbenv.workflows.request import CreateRequest, Wanted
    from bnbenv.workflows.voice import Voice

# Parts of the matrix that the judge reads.
JUDGED = (
    "bitsandbytes",
    "torch",
    "driver_floors",
    "driver_branches",
    "architectures",
    "indexes",
    "floors",
    "profiles",
    "hazards",
    "known_faults",
    "loaders",
    "caveats",
    "verified",
)
# uv can fetch these where the machine has none that serves.
DOWNLOADABLE_PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What will be built, and everything that decided it.

    Attributes:
        host: this machine.
        target: the machine that it is for.
        elsewhere: it is for another machine than this one.
        given_up: what an index that does not answer costs, a sentence each.
        interpreter: ``None`` where uv has to fetch one.
        locked: a lock or an environment has decided what is built, its Python too.
    """

    host: Host
    target: Target
    elsewhere: bool
    matrix: Matrix
    sources: Sources
    solution: Solution
    given_up: tuple[str, ...]
    base: Base | None
    interpreter: Path | None
    locked: bool = False


def choose(
    request: CreateRequest,
    voice: Voice,
    environ: Mapping[str, str],
    *,
    command: str | None = "the same line with",
    otherwise: str = "--cpu",
) -> Choice:
    """The best stack for the request.

    Args:
        request: what is wanted.
        voice: told of what takes long.
        environ: the caller's variables.
        command: as in `refuse_lost_gpu`.
        otherwise: the same.

    Raises:
        UnsolvableError: no stack serves the target, or the GPU that is there cannot be used.
        ExternalError: what would serve it cannot be reached.
        UsageError: the request cannot be read, or the base cannot serve.
    """
    from bnbenv.install.sources import read_sources
    from bnbenv.machine.probe import probe
    from bnbenv.matrix.load import load
    from bnbenv.workflows.profiles import with_definition

    host = probe(environ=environ)
    target = request.target or host.target
    if request.target is None and not request.wanted.cpu:
        refuse_lost_gpu(host, command, otherwise=otherwise)
    matrix = with_definition(load(*JUDGED, platform=(target.os, target.arch)), request.wanted)
    sources = read_sources(
        environ=environ,
        cwd=request.cwd,
        index_rows=matrix.indexes,
        mirrors=request.mirrors,
        offline=request.offline,
    )
    for note in sources.notes:
        voice.progress(note)
    base = None
    if request.wanted.base:
        base = _base(request.wanted.base, environ)
        _refuse_other_torch(request.wanted, base)
        matrix = matrix.with_torch((base_build(base, matrix, target),))
    availability = None
    if base is None:
        judge_request(request.wanted)  # what cannot be read is refused before an index is asked
        availability = ask_indexes(request.wanted, (target,), matrix, sources, voice, environ)
    offers = availability.offers() if availability else Offers()
    offers = replace(offers, unavailable=offers.unavailable | without(request.wanted, matrix))
    solution, target = _solve(request.wanted, target, matrix, offers, base, availability)
    for line in sources_in_doubt(availability, sources) if availability else ():
        voice.progress(line)
    interpreter = base.python if base else find_interpreter(host, solution.stack.python)
    return Choice(
        host=host,
        target=target,
        elsewhere=request.target is not None and not _same_machine(request.target, host.target),
        matrix=matrix,
        sources=sources,
        solution=solution,
        given_up=_given_up(request.wanted, target, matrix, offers, solution) if base is None else (),
        base=base,
        interpreter=interpreter,
    )


def recall(known: State, lock: Pylock, request: CreateRequest, environ: Mapping[str, str]) -> Choice:
    """The choice that an environment was built from, judged again for the machine as it is now.

    Asks no index: the lock names every file.

    Args:
        known: the environment's state.
        lock: its lock.
        request: made from the state; another target stands there only if the user names one.

    Raises:
        UsageError: the base is gone, or a version in the state cannot be read.
        DataError: the state's target cannot be read.
    """
    from bnbenv.install.sources import read_sources
    from bnbenv.judge.check import Combination, check
    from bnbenv.machine.document import target_from_dict
    from bnbenv.machine.probe import probe
    from bnbenv.matrix.load import load
    from bnbenv.workflows.profiles import with_definition

    host = probe(environ=environ)
    made_for = target_from_dict(known.target)
    target = request.target or (host.target if made_for.accelerator == host.target.accelerator else made_for)
    if request.wanted.cpu:
        target = without_accelerator(target)
    matrix = with_definition(load(*JUDGED), request.wanted)
    sources = read_sources(
        environ=environ,
        cwd=request.cwd,
        index_rows=matrix.indexes,
        mirrors=request.mirrors,
        offline=request.offline,
    )
    base = _base(request.wanted.base, environ) if request.wanted.base else None
    torch, wheel = known.torch or {}, known.bitsandbytes
    build = "" if torch.get("build") in {None, "mps", "unknown"} else f"+{torch['build']}"
    checked = check(
        Combination(
            torch=f"{torch.get('version', '0')}{build}",
            bitsandbytes=str(wheel["version"]) if wheel else None,
            python=known.python,
            packages=lock.versions,
            profile=known.profile,
        ),
        target,
        matrix,
    )
    row = checked.stack.torch._replace(index=str(torch.get("index", checked.stack.torch.index)))
    minor = minor_release(known.python)
    return Choice(
        host=host,
        target=target,
        elsewhere=not _same_machine(target, host.target) and not request.wanted.cpu,
        matrix=matrix,
        sources=sources,
        solution=Solution(stack=replace(checked.stack, torch=row, python=minor), judgement=checked.judgement),
        given_up=(),
        base=base,
        interpreter=base.python if base else find_interpreter(host, minor),
        locked=True,
    )


def refuse_lost_gpu(host: Host, command: str | None, *, otherwise: str = "--cpu") -> None:
    """Stop where a GPU is, or belongs, but cannot be used: a CPU build there helps nobody.

    Args:
        host: this machine.
        command: the line to which a description of another machine can be added; ``None`` if to none.
        otherwise: what goes on without one.

    Raises:
        UnsolvableError: code ``no-usable-gpu``.
    """
    if host.target.visible_gpus or not (host.target.gpus or host.gpu_traces or host.slurm == "login"):
        return
    if host.emulated == "rosetta":  # no option helps: for such a Python nothing is published
        raise UnsolvableError(
            f"this Python is an x86-64 one under Rosetta, without the GPU: {'; '.join(host.gpu_traces)}",
            hint="uv python install cpython-3.12-macos-aarch64, and install bnbenv with that Python",
            code="no-usable-gpu",
            data={"blocking": list(host.gpu_traces), "nearest": []},
        )
    if host.target.gpus:
        from bnbenv.doctor.machine import hiding_variables

        traces = list(hiding_variables(host)) or ["the environment"]
        message = f"{counted(len(host.target.gpus), 'GPU')} of this machine hidden from this process"
        first = "unset what hides them; or "
    else:
        traces = list(host.gpu_traces) or ["Slurm's tools, outside a job"]
        message = f"there are traces of a GPU, but none can be used here (driver: {host.driver_state})"
        first = ""
    described = (
        f'{command} --gpu "RTX 4090" --driver 550 (for the machine that has it), '
        "--target FILE (made there by `bnbenv detect --json`), or "
        if command
        else ""
    )
    raise UnsolvableError(
        f"{message}: {'; '.join(traces)}",
        hint=f"{first}{described}{otherwise}",
        code="no-usable-gpu",
        data={"blocking": traces, "nearest": []},
    )


def judge_request(wanted: Wanted, *, base: Base | None = None) -> Request:
    """The part of the request that the judge reads.

    Raises:
        UsageError: a version or specifier cannot be read, torch's names a build, or a CUDA version is asked
            of a CPU build.
    """
    if wanted.cpu and wanted.cuda:
        raise UsageError(
            "`--cpu` and `--cuda` exclude each other", hint="leave one of them out", code="bad-request"
        )
    if base is None:
        _refuse_build(wanted.torch)
    return Request(
        profile=wanted.profile,
        torch=f"=={base.torch.version}" if base and base.torch else _specifier(wanted.torch, "torch"),
        bitsandbytes=_specifier(wanted.bitsandbytes, "bitsandbytes"),
        cuda=wanted.cuda,
        python=base.version if base else wanted.python,
        cpu=wanted.cpu,
        prefer=wanted.prefer or "newest",
    )


def base_build(base: Base, matrix: Matrix, target: Target) -> TorchBuild:
    """The base's torch as a row: the matrix's where it knows that build, else measured from its libraries.

    Raises:
        UsageError: the base has no torch.
    """
    from bnbenv.doctor.stack import torch_row

    if base.torch is None:
        raise UsageError(
            f"`{base.python}` has no torch to build on",
            hint="leave out --base, or name the Python that has torch",
            code="base-unusable",
        )
    return torch_row(base.torch, target, matrix)._replace(index="base", pythons=(base.version,))


def _base(text: str, environ: Mapping[str, str]) -> Base:
    from bnbenv.env.base import read_base

    return read_base(expanded(text, "`--base`"), environ)


def _refuse_other_torch(wanted: Wanted, base: Base) -> None:
    """A base's torch is never replaced, so that asking for another one cannot be served.

    Raises:
        UsageError: ``--torch`` excludes the base's.
    """
    from packaging.specifiers import SpecifierSet

    asked = _specifier(wanted.torch, "torch")
    if asked and base.torch and not SpecifierSet(asked).contains(base.torch.full_version, prereleases=True):
        raise UsageError(
            f"`--torch {wanted.torch}` excludes torch {base.torch.full_version} of `{base.python}`",
            hint="leave out --torch, or leave out --base",
            code="base-unusable",
        )


def _refuse_build(text: str | None) -> None:
    """A build is chosen by the GPU, by ``--cuda`` or by ``--cpu``; ``--torch`` narrows releases alone.

    Raises:
        UsageError: `text` is such as ``2.14.1+cu130``.
    """
    named = re.search(r"([\w.]+)\+([\w.-]+)", text or "")
    if named is None:
        return
    release, build = named.groups()
    hint = f"`--torch {release}`: the GPU decides the build"
    if re.fullmatch(r"cu\d{2,3}", build):
        hint = f"--torch {release} --cuda {CudaVersion.parse(build)}"
    elif build == "cpu":
        hint = f"--torch {release} --cpu"
    raise UsageError(
        f"`--torch {text}` names a build, and `--torch` takes releases alone", hint=hint, code="bad-request"
    )


def _specifier(text: str | None, option: str) -> str | None:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    if text is None:
        return None
    try:
        return f"=={Version(text)}"
    except InvalidVersion:
        pass
    try:
        return str(SpecifierSet(text))
    except InvalidSpecifier:
        raise UsageError(
            f"`--{option} {text}` is neither a version nor a specifier",
            hint="such as `--torch 2.9.1` or `--torch '>=2.8,<2.10'`"
            if option == "torch"
            else f"such as `--{option} 0.50.2` or `--{option} '>=0.46,<0.50'`",
            code="bad-request",
        ) from None


def ask_indexes(
    wanted: Wanted,
    targets: Iterable[Target],
    matrix: Matrix,
    sources: Sources,
    voice: Voice,
    environ: Mapping[str, str],
    *,
    timeout: float = 5.0,
) -> Availability:
    """What the indexes have of torch that could serve any of the machines; seconds each has to answer."""
    from bnbenv.env.layout import Layout
    from bnbenv.install.availability import probe
    from bnbenv.judge.coverage import l4t_major

    shut = without(wanted, matrix)
    machines = {
        (target.os, target.arch, "cpu" if wanted.cpu else target.accelerator, l4t)
        for target in targets
        for l4t in (None, l4t_major(target))
    }
    names = {"pypi"} | {
        row.index
        for row in matrix.torch
        if (row.os, row.arch, _kind(row), row.l4t) in machines and row.index not in shut
    }
    found = probe(
        sources,
        names,
        known=matrix.torch,
        all_names=pinned_indexes(matrix),
        environ=environ,
        timeout=timeout,
        report=voice.progress,
        memory=Layout.find(environ).cache,
    )
    for index, release in found.newer.items():
        voice.progress(
            f"`{index}` lists torch {release}, which the matrix of {matrix.revision} does not know: "
            "`bnbenv matrix update` measures it"
        )
    return found


def sources_in_doubt(availability: Availability, sources: Sources) -> tuple[str, ...]:
    """A line for every index of ordinary packages that did not answer well: uv may wait for it long."""
    explicit = {index.name for index in sources.with_role("explicit")}
    return tuple(
        f"{problem.message}; other packages may have to come from it"
        for problem in availability.problems
        if problem.index not in explicit
    )


def pinned_indexes(matrix: Matrix) -> list[str]:
    """The indexes that the matrix names beside the default one; a configuration can switch them off."""
    return [row.name for row in matrix.indexes if row.name != "pypi"]


def _kind(row: TorchBuild) -> str:
    if row.cuda:
        return "cuda"
    if row.rocm:
        return "rocm"
    return row.build


def without(wanted: Wanted, matrix: Matrix) -> frozenset[str]:
    """The names of the indexes that ``--without-index`` leaves out, families spelled out.

    Raises:
        UsageError: there is no such index or family.
    """
    named = frozenset(wanted.without_index)
    known = {row.name for row in matrix.indexes} | {row.family for row in matrix.indexes} | {"pypi"}
    if unknown := named - known:
        raise UsageError(
            f"no index or family is called {', '.join(f'`{name}`' for name in sorted(unknown))}",
            hint=f"known families: {', '.join(sorted({row.family for row in matrix.indexes}))}",
        )
    return frozenset(row.name for row in matrix.indexes if row.name in named or row.family in named)


def _solve(
    wanted: Wanted,
    target: Target,
    matrix: Matrix,
    offers: Offers,
    base: Base | None,
    availability: Availability | None,
) -> tuple[Solution, Target]:
    """Solve with the Pythons at hand; where that fails, with those that uv can fetch."""
    from bnbenv.judge.solve import solve

    asked = judge_request(wanted, base=base)
    answer = solve(asked, target, matrix, offers)
    if isinstance(answer, Unsolvable) and base is None and wanted.python is None:
        wider = replace(target, pythons=DOWNLOADABLE_PYTHONS)
        second = solve(asked, wider, matrix, offers)
        if isinstance(second, Solution):
            return second, wider
    if isinstance(answer, Solution):
        return answer, target
    if base is not None:
        raise UsageError(
            f"the torch of `{base.python}` cannot serve `{target.name}`: {_why_not(base, target, answer)}",
            hint="leave out --base, and an environment with a torch of its own is built",
            code="base-unusable",
        )
    left = Offers(builds=offers.builds, unavailable=without(wanted, matrix))
    everywhere = solve(asked, target, matrix, left)
    if availability is not None and isinstance(everywhere, Solution):
        raise availability.nothing_serves(cpu=wanted.cpu)
    raise unsolvable(answer)


def _why_not(base: Base, target: Target, answer: Unsolvable) -> str:
    """The reason in the user's terms: the wrong kind of build first, else what the judge would need."""
    torch = base.torch
    kinds = {
        "cuda": torch.cuda if torch else None,
        "rocm": torch.hip if torch else None,
        "xpu": torch.xpu if torch else None,
    }
    if torch and target.accelerator in kinds and kinds[target.accelerator] is None:
        found = next((f"{kind.upper()} {version}" for kind, version in kinds.items() if version), "CPU")
        gpus = ", ".join(gpu.name for gpu in target.visible_gpus) or target.accelerator
        return f"torch {torch.full_version} is a {found} build, and there is {gpus}"
    needs = next((", ".join(needs) for _, needs in answer.nearest if needs), "")
    return "; ".join(answer.blocking) + (f" (it would need {needs})" if needs else "")


def unsolvable(answer: Unsolvable) -> UnsolvableError:
    """The judge's no, as the error of a command."""
    nearest = _ways(answer.nearest[:3])
    reasons: list[str] = []
    if not nearest:
        reasons = [finding.summary for finding in answer.findings]
        nearest = [finding.remedy.summary for finding in answer.findings if finding.remedy]
    return UnsolvableError(
        "no stack serves this machine: " + "; ".join((*answer.blocking, *reasons)),
        hint="; ".join(nearest) or _where_to_look(answer.blocking),
        data={
            "blocking": list(answer.blocking),
            "nearest": [
                {
                    "torch": stack.torch.version,
                    "build": stack.torch.build,
                    "bitsandbytes": stack.bitsandbytes.version if stack.bitsandbytes else None,
                    "needs": list(needs),
                }
                for stack, needs in answer.nearest
            ],
        },
    )


def _ways(nearest: Sequence[tuple[Stack, tuple[str, ...]]]) -> list[str]:
    """What would make a stack serve, in words: the least that a newer driver must be first, being a step.

    A way that wants all that another wants, and more, is none to take.
    """
    ways = [
        (f"torch {stack.torch.version}+{stack.torch.build}", needs)
        for stack, needs in nearest
        if not any(set(other) < set(needs) for _, other in nearest)
    ]
    drivers = {
        torch: found[1]
        for torch, needs in ways
        if len(needs) == 1 and (found := re.fullmatch(r"driver >= ([\d.]+)", needs[0]))
    }
    rest = [_way(torch, needs) for torch, needs in ways if torch not in drivers]
    if not drivers:
        return rest
    least, *newer = sorted(drivers, key=lambda torch: DottedVersion.parse(drivers[torch]))
    also = "".join(f", {torch} from {drivers[torch]} on" for torch in newer)
    return [f"update the NVIDIA driver to {drivers[least]} or newer, for {least}{also}", *rest]


def _way(torch: str, needs: tuple[str, ...]) -> str:
    dropped = [need.removeprefix("drop ") for need in needs if need.startswith("drop ")]
    if not dropped:
        return f"{torch} would need {', '.join(needs)}"
    others = ", ".join(need for need in needs if not need.startswith("drop "))
    return f"{torch} would serve without {' and '.join(dropped)}" + (f": {others}" if others else "")


def _where_to_look(blocking: tuple[str, ...]) -> str:
    if any(fact.startswith("unavailable: ") for fact in blocking):
        from bnbenv.install.unreached import INDEX_INSTEAD

        return INDEX_INSTEAD
    return "bnbenv matrix show torch, and bitsandbytes (the releases that are known)"


def _given_up(
    wanted: Wanted, target: Target, matrix: Matrix, offers: Offers, solution: Solution
) -> tuple[str, ...]:
    from bnbenv.judge.document import torch_document
    from bnbenv.judge.solve import solve

    shut = without(wanted, matrix)
    if not offers.unavailable - shut and not offers.listed:
        return ()
    best = solve(judge_request(wanted), target, matrix, Offers(builds=offers.builds, unavailable=shut))
    if not isinstance(best, Solution):
        return ()
    return given_up(torch_document(best.stack), torch_document(solution.stack))


def given_up(wished: Mapping[str, Any], got: Mapping[str, Any]) -> tuple[str, ...]:
    """What is lost by indexes that cannot be had now, a sentence each.

    Args:
        wished: the torch that would be chosen if all of them answered, as in the answer of `resolve`.
        got: the one that is.
    """
    if (wished["version"], wished["build"]) == (got["version"], got["build"]):
        return ()
    sentence = (
        f"torch {wished['version']} ({wished['build']}, index `{wished['index']}`) would be the first choice"
        f", but cannot be had now: torch {got['version']} ({got['build']}, `{got['index']}`) is taken instead"
    )
    return (sentence,)


def find_interpreter(host: Host, minor: str, *, outside: Path | None = None) -> Path | None:
    """The newest interpreter of that minor version on this machine; those of environments last.

    Args:
        outside: an environment whose own interpreters do not count.
    """
    found = [
        (Path(python.path), DottedVersion.parse(python.version))
        for python in host.pythons
        if python.version.split(".")[:2] == minor.split(".")
        and (outside is None or outside not in Path(python.path).parents)
    ]

    return max(found, key=lambda one: (_lasts(one[0]), one[1]))[0] if found else None


def refuse_without_python(choice: Choice, environ: Mapping[str, str]) -> None:
    """Stop where the Python to build with is not on the machine, and uv may fetch none.

    Raises:
        ExternalError: code ``python-missing``.
    """
    if choice.interpreter is None and choice.sources.offline:
        raise without_python(choice, "uv fetches none without the network", environ)


def without_python(choice: Choice, why: str, environ: Mapping[str, str]) -> ExternalError:
    """The Python to build with is not on the machine, and `why` it does not come there."""
    from bnbenv.machine.pythons import scripts_on_path

    wanted = choice.solution.stack.python
    scripts = ", ".join(f"`{path}`" for path in scripts_on_path(environ, wanted)[:3])
    behind = ", or put the directory of the one that such a script starts on PATH" if scripts else ""
    otherwise = ": the lock is for no other" if choice.locked else ", or name another with `--python`"
    return ExternalError(
        f"there is no Python {wanted} on this machine, and {why}"
        + (f"; what scripts start is not known without running them: {scripts}" if scripts else ""),
        hint=f"install Python {wanted}{behind}{otherwise}",
        code="python-missing",
    )


def _lasts(python: Path) -> int:
    """How far an interpreter can be built upon: a virtual environment and one of conda's come and go."""
    prefixes = (python.parent, python.parent.parent)  # of conda on Windows, and of everything else
    if any((prefix / "pyvenv.cfg").exists() for prefix in prefixes):
        return 0
    # Conda's own installation, which has `condabin`, stays when its environments go.
    return 2 - any((it / "conda-meta").exists() and not (it / "condabin").exists() for it in prefixes)


def _same_machine(one: Target, other: Target) -> bool:
    facts = ("os", "arch", "accelerator", "driver", "gpus", "l4t")
    return all(getattr(one, fact) == getattr(other, fact) for fact in facts)
