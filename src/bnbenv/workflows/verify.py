"""`verify`: does an environment compute rightly, here and now?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, replace
from bnbenv.errors import ExternalError, UnsolvableError, UsageError
from bnbenv.selftest.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bnbenv.selftest.verdict import Level
    from bnbenv.workflows.environment import Located
    from bnbenv.workflows.voice import Voice


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The answer of `verify`.

    Attributes:
        driver: of the accelerator, ``None`` where there is none.
        lasting: it is about what the environment is for, and one of ours keeps it.
    """

    environment: Located
    verdict: Verdict
    driver: str | None = None
    lasting: bool = False


def verify(
    environment: Located,
    *,
    level: Level,
    cpu: bool,
    cwd: Path,
    voice: Voice,
    environ: Mapping[str, str],
    require_accelerator: bool = False,
) -> Verified:
    """Run the self-test in the environment; `keep` writes down what lasts of it.

    Args:
        require_accelerator: raise where it is made for an accelerator that is not visible here.

    Raises:
        EnvironmentProblem: it has no interpreter.
        UnsolvableError: code ``no-usable-gpu``.
        UsageError: `require_accelerator`, and what it is made for is not known.
    """
    from bnbenv.env.layout import Layout
    from bnbenv.machine.probe import probe
    from bnbenv.matrix.load import load
    from bnbenv.selftest.import_check import import_check
    from bnbenv.selftest.runner import run

    host = probe(environ=environ)
    made_for = _made_for(environment)
    accelerator = "cpu" if cpu else made_for or host.target.accelerator
    hidden = bool(host.target.gpus) and not host.target.visible_gpus
    missing = accelerator != "cpu" and (hidden or accelerator != host.target.accelerator)
    if require_accelerator and made_for is None and not cpu:
        raise UsageError(
            f"what {environment.directory} was made for is not known: bnbenv did not make it, "
            "or its state is gone",
            hint="--cpu, or without --require-accelerator",
        )
    if missing and require_accelerator:
        raise _unseen(environment, accelerator)
    modules = _without_bitsandbytes(environment)
    if modules:
        voice.progress("importing what it is made of: the self-test computes with bitsandbytes alone")
        verdict = import_check(environment.python, modules, environ=environ)
        return Verified(environment=environment, verdict=verdict, lasting=True)
    if missing:
        voice.progress(f"made for {accelerator}, and none is visible here: nothing is computed")
        return Verified(environment=environment, verdict=_not_run(level, accelerator))
    voice.progress(f"self-test of {environment.directory}, level {level}")
    verdict = run(
        environment.python,
        level=level,
        accelerator=accelerator,
        environ=environ,
        cwd=cwd,
        known_faults=load("known_faults").known_faults,
        cpu_flags=host.target.cpu_flags,
        report=voice.progress,
        bytecode=Layout.find(environ).bytecode,
    )
    if level == "train":
        _refuse_untrained(environment, verdict)
    driver = str(host.target.driver) if host.target.driver else None
    return Verified(environment=environment, verdict=verdict, driver=driver, lasting=made_for == accelerator)


def record(verified: Verified, file: Path) -> None:
    """Append the block of a verdict to a file of blocks; what is in it stays.

    Raises:
        UsageError: nothing was computed.
        ExternalError: the file cannot be written.
    """
    import platform
    from datetime import datetime, timezone

    from bnbenv.env import durable
    from bnbenv.selftest.block import facts_of, write_block
    from bnbenv.selftest.export import script_sha256

    if verified.verdict.verdict == "not-run":
        raise UsageError("nothing was computed, so there is nothing to record", hint="leave out --record")
    block = write_block(
        facts_of(
            verified.verdict,
            script=script_sha256(),
            date=datetime.now(tz=timezone.utc).date().isoformat(),
            platform=platform.platform(),
            driver=verified.driver,
        )
    )
    with durable.told(file, "write"), file.open("a", encoding="utf-8", newline="\n") as stream:
        stream.write(block)


def export(file: Path) -> None:
    """Write the self-test as one program.

    Raises:
        UsageError: something stands there.
        ExternalError: it cannot be written.
    """
    from bnbenv.selftest.export import export_script
    from bnbenv.workflows.new_file import write_new

    write_new(file, export_script())


def _made_for(environment: Located) -> str | None:
    """What one of bnbenv's own environments computes on; ``None`` for any other, or a state that is lost."""
    if environment.kind != "bnbenv":
        return None
    from bnbenv.env import state

    known = state.read_whole(environment.generation.state_file)
    if known is None:
        return None
    return "cpu" if known.request.get("cpu") else known.target.get("accelerator")


def _without_bitsandbytes(environment: Located) -> tuple[str, ...]:
    """What an environment of ours whose profile has no bitsandbytes is about, as modules; else nothing.

    Where the profile has it, its absence is a fault, and the self-test says so.
    """
    if environment.kind != "bnbenv":
        return ()
    from bnbenv.env import state
    from bnbenv.matrix.load import load
    from bnbenv.workflows.profiles import modules_of, with_definition
    from bnbenv.workflows.request import Wanted

    known = state.read_whole(environment.generation.state_file)
    if known is None:
        return ()
    wanted = Wanted.from_dict({**known.request, "profile": known.profile})
    profiles = with_definition(load("profiles"), wanted).profiles
    row = next((row for row in profiles if row.name == known.profile), None)
    if row is None or any("bitsandbytes" in group.packages for group in row.sets):
        return ()
    return modules_of(row)


def _unseen(environment: Located, accelerator: str) -> UnsolvableError:
    return UnsolvableError(
        f"{environment.directory} is made for {accelerator}, and no such accelerator is visible here: "
        "nothing was computed",
        hint="bnbenv detect",
        code="no-usable-gpu",
        data={"blocking": [f"no {accelerator} accelerator is visible"], "nearest": []},
    )


def _not_run(level: Level, accelerator: str) -> Verdict:
    return Verdict(
        verdict="not-run",
        level=level,
        library=None,
        devices=(),
        notes=(f"no {accelerator} accelerator is visible here; `--cpu` tests the processor instead",),
    )


def keep(verified: Verified, voice: Voice, environ: Mapping[str, str]) -> None:
    """Store a verdict that lasts where `list` and `create` look for it; of another do nothing.

    An image is verified by users who may not write in it: the verdict is theirs all the same.
    """
    from bnbenv.env import durable, state
    from bnbenv.selftest import document
    from bnbenv.workflows.environment import holding

    if not verified.lasting:
        return
    environment, verdict = verified.environment, verified.verdict
    generation = environment.generation
    try:
        with holding(environment, "verify", voice, environ):
            known = state.read(generation.state_file)
            durable.write_whole(generation.verdict_file, document.dump(verdict))
            state.write(generation.state_file, replace(known, verdict=verdict.verdict))
    except ExternalError as problem:
        if problem.code != "permission":
            raise
        voice.progress(f"the verdict is not kept with the environment: {problem.message}")


def _refuse_untrained(environment: Located, verdict: Verdict) -> None:
    """An environment without the training libraries was not trained in, and no verdict may say so.

    Raises:
        UsageError: they are not there.
    """
    checks = {check.name: check for device in verdict.devices for check in device.checks}
    imported = checks.get("train/import")
    if imported is not None and imported.state == "not-offered":
        raise UsageError(
            f"{environment.directory} cannot train: {imported.detail or 'a library is missing'}",
            hint="bnbenv create qlora has transformers, peft and accelerate; or verify with --level full",
        )
