"""`verify`: does an environment compute rightly, here and now?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bnbenv.selftest.verdict import Level, Verdict
    from bnbenv.workflows.environment import Located
    from bnbenv.workflows.voice import Voice


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The answer of `verify`."""

    environment: Located
    verdict: Verdict


def verify(
    environment: Located,
    *,
    level: Level,
    cpu: bool,
    cwd: Path,
    voice: Voice,
    environ: Mapping[str, str],
) -> Verified:
    """Run the self-test in the environment; an environment of ours keeps the verdict.

    Raises:
        EnvironmentProblem: it has no interpreter.
    """
    import json

    from bnbenv.env import durable
    from bnbenv.env.generation import Generation
    from bnbenv.machine.probe import probe
    from bnbenv.matrix.load import load
    from bnbenv.selftest.document import verdict_to_dict
    from bnbenv.selftest.runner import run

    host = probe(environ=environ)
    voice.progress(f"self-test of {environment.directory}, level {level}")
    verdict = run(
        environment.python,
        level=level,
        accelerator="cpu" if cpu else host.target.accelerator,
        environ=environ,
        cwd=cwd,
        known_faults=load("known_faults").known_faults,
        cpu_flags=host.target.cpu_flags,
        report=voice.progress,
    )
    if level == "train":
        _refuse_untrained(environment, verdict)
    generation = Generation(directory=environment.directory, digest="", number=0)
    if environment.kind == "bnbenv" and verdict.verdict != "not-run":
        text = json.dumps(verdict_to_dict(verdict), indent=1) + "\n"
        durable.write_whole(generation.verdict_file, text.encode())
    return Verified(environment=environment, verdict=verdict)


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
