"""`doctor`: what is wrong with an environment, read from its files and from the machine; nothing is run."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, replace
from bnbenv.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from bnbenv.doctor.stack import Reading
    from bnbenv.env.installed import Installed
    from bnbenv.env.state import State
    from bnbenv.env.torch import InstalledTorch
    from bnbenv.judge.stack import Finding, Judgement, Stack
    from bnbenv.machine.host import Host
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.workflows.environment import Located
    from bnbenv.workflows.voice import Voice

# Parts of the matrix that the judge reads of a stack that is there already.
_JUDGED = (
    "bitsandbytes",
    "causes",
    "torch",
    "driver_floors",
    "driver_branches",
    "architectures",
    "floors",
    "profiles",
    "hazards",
    "known_faults",
    "loaders",
    "caveats",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """The answer of `doctor`.

    Attributes:
        installed: the packages of the environment itself, without those of its base.
        target: the machine that the stack was judged for.
        torch: the torch that would be imported; ``None`` where there is none.
        bitsandbytes: the version that would be imported; ``None`` where there is none.
        library: the native library that bitsandbytes would load; ``None`` where it finds none.
        findings: most likely cause first.
        verdict: what the self-test said last, in an environment of bnbenv's own; of the run asked for, else.
        matrix: the revision that it was judged by.
    """

    located: Located
    installed: Installed
    target: Target
    torch: InstalledTorch | None
    bitsandbytes: str | None
    library: str | None
    findings: tuple[Finding, ...]
    matrix: str
    verdict: str | None = None

    @property
    def healthy(self) -> bool:
        """Whether nothing was found that makes anything worse: neither an error nor a warning."""
        return all(found.severity == "info" for found in self.findings)

    @property
    def works(self) -> bool:
        """Whether no error was found."""
        return all(found.severity != "error" for found in self.findings)


def examine(
    located: Located,
    voice: Voice,
    environ: Mapping[str, str],
    *,
    deep: bool = False,
    target: Target | None = None,
    described: tuple[str, ...] = (),
    cwd: Path | None = None,
) -> Examined:
    """Look an environment over.

    Args:
        located: any environment, not only one of bnbenv's own.
        environ: the variables of the process that would run in it.
        deep: compare every file with RECORD by hash.
        target: judge it for this machine instead of the one at hand.
        described: the options that named that machine, for the commands that are advised.
        cwd: where the process would start; what lies there may hide packages.

    Raises:
        EnvironmentProblem: there is no environment, or its state is of a newer bnbenv.
    """
    from bnbenv.doctor import surroundings
    from bnbenv.doctor.interpreter import is_of_windows, tell_windows
    from bnbenv.doctor.machine import judged_target
    from bnbenv.doctor.program import check_program, program_of
    from bnbenv.doctor.ranking import rank
    from bnbenv.doctor.stack import read_bitsandbytes, read_stack
    from bnbenv.env.installed import with_base
    from bnbenv.machine.probe import probe
    from bnbenv.matrix.load import load

    installed = located.read_installed()
    state, findings = _state(located)
    host = probe(environ=environ) if target is None else None
    judged_for = judged_target(host, state) if host is not None else target
    if judged_for is None:
        raise AssertionError("there is a host where no target is given")
    user_site = surroundings.user_site(installed, located.python, environ)
    seen = with_base(installed, user_site=user_site)
    platform = (judged_for.os, judged_for.arch)
    # A wheel of another platform, such as one tagged for any, is read for what it lacks here.
    matrix = load(*_JUDGED, platform=platform, release=read_bitsandbytes(seen)[0] or "")
    if is_of_windows(located.directory) and judged_for.os == "linux":
        return Examined(
            located=located,
            installed=installed,
            target=judged_for,
            torch=None,
            bitsandbytes=None,
            library=None,
            findings=(tell_windows(located.directory),),
            matrix=matrix.revision,
        )
    reading = read_stack(
        seen,
        judged_for,
        matrix,
        profile=_known_profile(state, matrix),
        environ=environ,
        report=voice.progress,
    )
    judgement = _judge(reading.stack, judged_for, matrix)
    judged = judgement.findings if judgement is not None else ()
    program = program_of(located.python)
    machine = tuple(_of_the_machine(host, state, reading)) if host is not None else ()
    if program is not None:  # the machine's probe tells of the Python that bnbenv itself runs on
        machine = tuple(found for found in machine if found.code != "emulated-interpreter")
    findings += machine
    findings += _without_doubles(judged, machine)
    findings += check_program(program, located.python, judged_for)
    findings += _of_the_environment(located, installed, seen, reading, state, matrix, environ, deep=deep)
    if host is not None:
        findings += _of_the_surroundings(
            installed, seen, reading, judged, judged_for, matrix, environ, cwd=cwd, user_site=user_site
        )
    return Examined(
        located=located,
        installed=installed,
        target=judged_for,
        torch=reading.torch,
        bitsandbytes=reading.bitsandbytes,
        library=judgement.library if judgement else None,
        findings=_with_commands(
            rank(_let_in(findings, located, state)), located, installed, matrix, described
        ),
        matrix=matrix.revision,
        verdict=state.verdict if state is not None else None,
    )


def prove(examined: Examined, voice: Voice, environ: Mapping[str, str], *, cwd: Path) -> Examined:
    """Run the self-test as well, and count a failure as a finding.

    Raises:
        EnvironmentProblem: the environment has no interpreter.
    """
    from bnbenv.doctor.ranking import rank
    from bnbenv.judge.rules.rule import finding
    from bnbenv.workflows.verify import keep, verify

    verified = verify(examined.located, level="quick", cpu=False, cwd=cwd, voice=voice, environ=environ)
    keep(verified, voice, environ)
    verdict = verified.verdict
    findings = tuple(found for found in examined.findings if found.code != "wrong-result")
    if verdict.verdict == "failed":
        failed = [
            f"{device.device}: {check.name}" + (f" ({check.dtype})" if check.dtype else "")
            for device in verdict.devices
            for check in device.checks
            if check.state == "failed"
        ]
        found = finding(
            "wrong-result",
            "error",
            "self-test",
            "the self-test failed: the environment does not compute rightly",
            *failed[:8],
            remedy="What the other findings name first; then test again.",
            commands=(_verify_command(examined.located),),
            source="the self-test",
        )
        findings = rank((*findings, found))
    return replace(examined, findings=findings, verdict=verdict.verdict)


def _of_the_environment(
    located: Located,
    installed: Installed,
    seen: Installed,
    reading: Reading,
    state: State | None,
    matrix: Matrix,
    environ: Mapping[str, str],
    *,
    deep: bool,
) -> Iterator[Finding]:
    """What the files of the environment tell."""
    from bnbenv.doctor.files import check_files
    from bnbenv.doctor.interpreter import check_interpreter, installs_elsewhere
    from bnbenv.doctor.requirements import check_requirements

    yield from check_interpreter(installed, located.python, environ)
    of_files = check_files(installed, reading.package, made=_made(located), deep=deep)
    absent = tuple(_absent(reading, state, of_files))
    yield from absent
    if any(found.code == "bnb-not-installed" for found in absent):
        yield from installs_elsewhere(installed, located.python, environ)
    yield from of_files
    yield from check_requirements(
        seen,
        reading.torch,
        hazards=frozenset(row.package for row in matrix.hazards),
        bitsandbytes=reading.bitsandbytes,
    )
    if state is not None:
        from bnbenv.doctor.changes import check_changes, read_lock

        locked = read_lock(located.generation.lock_file)
        yield from check_changes(reading, installed, state, locked)


def _of_the_machine(host: Host, state: State | None, reading: Reading) -> Iterator[Finding]:
    """What the machine below it tells."""
    from bnbenv.doctor.machine import check_machine
    from bnbenv.judge.loader import backend_of

    yield from check_machine(host, state, wants=backend_of(reading.stack.torch) if reading.stack else None)


def _of_the_surroundings(
    installed: Installed,
    seen: Installed,
    reading: Reading,
    judged: Iterable[Finding],
    target: Target,
    matrix: Matrix,
    environ: Mapping[str, str],
    *,
    cwd: Path | None,
    user_site: Path | None,
) -> Iterator[Finding]:
    """What the user's variables, start-up files, directories and processes tell."""
    from bnbenv.doctor import surroundings
    from bnbenv.doctor.loader_path import check_loader_path
    from bnbenv.doctor.running import check_running

    assignments = surroundings.read_assignments(environ, installed.prefix)
    would = {
        line.name: found
        for line in assignments
        if line.name not in environ
        and (found := _were_it_set(line.name, line.value, reading.stack, target, matrix)) is not None
    }
    yield from surroundings.check_variables(environ, assignments, judged, overridden_by=would)
    yield from surroundings.check_import_path(seen, environ, cwd)
    if user_site is not None:
        yield from surroundings.check_user_site(installed, user_site)
    yield from check_loader_path(seen, reading.torch, environ, assignments)
    yield from check_running(seen)


def _were_it_set(
    name: str, value: str, stack: Stack | None, target: Target, matrix: Matrix
) -> Finding | None:
    """What the judge says of a variable that a start-up file sets, and this process does not have."""
    if stack is None or not name.startswith("BNB_"):
        return None
    answer = _judge(replace(stack, env={**stack.env, name: value}), target, matrix)
    return next((found for found in answer.findings if found.subject == name), None) if answer else None


def _state(located: Located) -> tuple[State | None, list[Finding]]:
    """The state of one of bnbenv's own; a broken one is a finding."""
    from bnbenv.env import state
    from bnbenv.judge.rules.rule import finding

    if located.kind != "bnbenv":
        return None, []
    try:
        known = state.read(located.generation.state_file)
    except EnvironmentProblem as problem:
        if problem.code == "state-too-new":
            raise
        return None, [
            finding(
                "state-broken",
                "error",
                "state.json",
                "the environment's state cannot be read: what it was made for is not known",
                problem.message,
                remedy="Return to the generation before, or make it anew under the same name.",
                source="the state of the environment",
            )
        ]
    if known.verdict != "failed":
        return known, []
    return known, [
        finding(
            "wrong-result",
            "error",
            "self-test",
            "the self-test failed when it was last run here",
            remedy="Test again, after what the other findings name.",
            commands=(_verify_command(located),),
            source="the state of the environment",
        )
    ]


def _made(located: Located) -> float | None:
    """When an environment of bnbenv's own was finished."""
    if located.kind != "bnbenv":
        return None
    try:
        return located.generation.ready_file.stat().st_mtime
    except OSError:
        return None


def _known_profile(state: State | None, matrix: Matrix) -> str:
    known = {row.name for row in matrix.profiles}
    return state.profile if state is not None and state.profile in known else ""


def _judge(stack: Stack | None, target: Target, matrix: Matrix) -> Judgement | None:
    from bnbenv.judge.judge import judge

    return judge(stack, target, matrix) if stack is not None else None


def _absent(reading: Reading, state: State | None, of_files: Iterable[Finding]) -> Iterator[Finding]:
    """What is not installed, or tells no version; a torch of which files were lost is there all the same."""
    from bnbenv.judge.rules.rule import finding

    damaged = any(found.code == "file-damaged" and found.subject == "torch" for found in of_files)
    if reading.torch is None and not damaged:
        yield finding(
            "torch-not-installed",
            "error",
            "torch",
            "torch is not installed in this environment",
            remedy="Install the build of torch that serves this machine.",
            source="the packages of the environment",
        )
    elif reading.torch is not None and reading.stack is None:
        yield finding(
            "file-damaged",
            "error",
            "torch",
            "`torch/version.py` is damaged or cannot be read: it tells no version",
            str(reading.torch.directory / "version.py"),
            remedy="Reinstall torch.",
            source="torch/version.py",
        )
    if reading.bitsandbytes is None and (state is None or state.bitsandbytes):
        yield finding(
            "bnb-not-installed",
            "error",
            "bitsandbytes",
            "bitsandbytes is not installed in this environment",
            remedy="Install it.",
            source="the packages of the environment",
        )


def _without_doubles(judged: Iterable[Finding], machine: Iterable[Finding]) -> list[Finding]:
    """What the judge says beside the machine: that there is no GPU is told once, with the reason why."""
    told = any(found.code in {"driver-broken", "no-gpu-visible"} for found in machine)
    return [found for found in judged if not (told and found.code == "no-gpu-visible")]


def _let_in(findings: Iterable[Finding], located: Located, state: State | None) -> Iterator[Finding]:
    """Say of what a package breaks that it was let in with ``--anyway``: a repair would let it in again."""
    from bnbenv.judge.stack import Remedy

    let_in = state.request.get("anyway", ()) if state is not None else ()
    for found in findings:
        if found.subject not in let_in or not found.code.startswith("quant-"):
            yield found
            continue
        remedy = Remedy(
            summary=f"Take the environment apart, or make one without {found.subject}.",
            commands=(shlex.join(["bnbenv", "split", located.name]),),
        )
        yield replace(found, summary=f"{found.summary}; it was let in with `--anyway`", remedy=remedy)


def _verify_command(located: Located) -> str:
    return shlex.join(["bnbenv", "verify", located.name])


def _with_commands(
    findings: Iterable[Finding],
    located: Located,
    installed: Installed,
    matrix: Matrix,
    described: tuple[str, ...],
) -> tuple[Finding, ...]:
    from bnbenv.doctor.remedies import with_commands
    from bnbenv.env.installed import is_externally_managed

    causes = {row.id: row for row in matrix.causes}
    managed = is_externally_managed(installed.prefix)
    apart = {name for row in matrix.profiles for name in row.excludes}
    versions = installed.versions
    return tuple(
        with_commands(
            found,
            causes[found.code],
            name=located.name,
            ours=located.kind == "bnbenv",
            managed=managed,
            apart=found.subject in apart,
            python=located.python,
            version=versions.get(found.subject) or None,
            described=described,
        )
        for found in findings
    )
