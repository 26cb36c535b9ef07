"""`doctor`: what is wrong with an environment, read from its files and from the machine; nothing is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bnbenv.env.generation import Generation
from bnbenv.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnbenv.doctor.stack import InstalledTorch, Reading
    from bnbenv.env.installed import Installed
    from bnbenv.env.state import State
    from bnbenv.judge.stack import Finding, Judgement
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.workflows.environment import Located
    from bnbenv.workflows.voice import Voice

# Parts of the matrix that the judge reads of a stack that is there already.
_JUDGED = (
    "bitsandbytes",
    "torch",
    "driver_floors",
    "driver_branches",
    "architectures",
    "floors",
    "profiles",
    "hazards",
    "known_faults",
    "loaders",
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
    """

    located: Located
    installed: Installed
    target: Target
    torch: InstalledTorch | None
    bitsandbytes: str | None
    library: str | None
    findings: tuple[Finding, ...]

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
) -> Examined:
    """Look an environment over.

    Args:
        located: any environment, not only one of bnbenv's own.
        environ: the variables of the process that would run in it.
        deep: compare every file with RECORD by hash.
        target: judge it for this machine instead of the one at hand.

    Raises:
        EnvironmentProblem: there is no environment, or its state is of a newer bnbenv.
    """
    from bnbenv.doctor.files import check_files
    from bnbenv.doctor.machine import check_machine, judged_target
    from bnbenv.doctor.ranking import rank
    from bnbenv.doctor.stack import read_stack
    from bnbenv.env.installed import read_installed, with_base
    from bnbenv.machine.probe import probe
    from bnbenv.matrix.load import load

    installed = read_installed(located.directory)
    state, findings = _state(located)
    host = probe(environ=environ) if target is None else None
    judged_for = judged_target(host, state) if host is not None else target
    if judged_for is None:
        raise AssertionError("there is a host where no target is given")
    matrix = load(*_JUDGED)
    reading = read_stack(
        with_base(installed),
        judged_for,
        matrix,
        profile=_known_profile(state, matrix),
        environ=environ,
        report=voice.progress,
    )
    judgement, judged = _judge(reading, judged_for, matrix)
    findings += judged
    findings += _absent(reading, state)
    findings += check_files(installed, made=_made(located), deep=deep)
    if state is not None:
        findings += _changes(reading, installed, state, located)
    if host is not None:
        wants = _accelerator(reading)
        findings += check_machine(host, state, wants=wants)
        findings = _without_doubles(findings)
    return Examined(
        located=located,
        installed=installed,
        target=judged_for,
        torch=reading.torch,
        bitsandbytes=reading.bitsandbytes,
        library=judgement.library if judgement else None,
        findings=rank(findings),
    )


def _state(located: Located) -> tuple[State | None, list[Finding]]:
    """The state of one of bnbenv's own; a broken one is a finding."""
    from bnbenv.env import state
    from bnbenv.judge.rules.rule import finding

    if located.kind != "bnbenv":
        return None, []
    try:
        return state.read(_generation(located).state_file), []
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


def _generation(located: Located) -> Generation:
    return Generation(directory=located.directory, digest="", number=0)


def _made(located: Located) -> float | None:
    """When an environment of bnbenv's own was finished."""
    if located.kind != "bnbenv":
        return None
    try:
        return _generation(located).ready_file.stat().st_mtime
    except OSError:
        return None


def _known_profile(state: State | None, matrix: Matrix) -> str:
    known = {row.name for row in matrix.profiles}
    return state.profile if state is not None and state.profile in known else ""


def _judge(reading: Reading, target: Target, matrix: Matrix) -> tuple[Judgement | None, tuple[Finding, ...]]:
    from bnbenv.judge.judge import judge

    if reading.stack is None:
        return None, ()
    answer = judge(reading.stack, target, matrix)
    return answer, answer.findings


def _absent(reading: Reading, state: State | None) -> Iterator[Finding]:
    from bnbenv.judge.rules.rule import finding

    if reading.torch is None:
        yield finding(
            "torch-not-installed",
            "error",
            "torch",
            "torch is not installed in this environment",
            remedy="Install the build of torch that serves this machine.",
            source="the packages of the environment",
        )
    elif reading.stack is None:
        yield finding(
            "file-damaged",
            "error",
            "torch",
            "`torch/version.py` is damaged: it tells no version",
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


def _changes(reading: Reading, installed: Installed, state: State, located: Located) -> tuple[Finding, ...]:
    from bnbenv.doctor.changes import check_changes, read_lock

    return tuple(check_changes(reading, installed, state, read_lock(_generation(located).lock_file)))


def _accelerator(reading: Reading) -> str | None:
    from bnbenv.judge.loader import backend_of

    return backend_of(reading.stack.torch) if reading.stack else None


def _without_doubles(findings: list[Finding]) -> list[Finding]:
    """The judge tells of a GPU build without GPU; where the machine says why, that is enough."""
    told = any(
        found.code in {"driver-broken", "no-gpu-visible"} and found.subject != "torch" for found in findings
    )
    return [
        found
        for found in findings
        if not (told and found.code == "no-gpu-visible" and found.subject == "torch")
    ]
