"""Whether packages import at all: all that can be said of an environment without bitsandbytes.

The self-test's references are of bitsandbytes' kernels, so that the verdict is ``not-run`` at best.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from bnbenv.errors import EnvironmentProblem
from bnbenv.selftest.verdict import Check, Device, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_LIMIT = 300.0  # seconds; the first import compiles thousands of modules


def import_check(
    python: Path, modules: Sequence[str], *, environ: Mapping[str, str], timeout: float = _LIMIT
) -> Verdict:
    """Import each module in one child; ``failed`` names the error, and else the verdict is ``not-run``.

    Raises:
        EnvironmentProblem: the interpreter cannot be started.
    """
    code = "".join(f"import {module}\n" for module in modules)
    try:
        done = subprocess.run(
            [str(python), "-I", "-B", "-c", code],
            env={**environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        said = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        detail = said if done.returncode else None
    except subprocess.TimeoutExpired:
        detail = f"no answer within {timeout:.0f} s"
    except OSError as error:
        raise EnvironmentProblem(
            f"{python} cannot be started: {error.strerror or error}",
            hint="bnbenv create PROFILE --name NAME builds it anew",
            code="state-broken",
        ) from error
    check = Check(name="import", dtype="", state="failed" if detail else "passed", detail=detail)
    return Verdict(
        verdict="failed" if detail else "not-run",
        level="quick",
        library=None,
        devices=(Device(device="import", name=", ".join(modules), judged=False, checks=(check,)),),
        notes=("the self-test computes with bitsandbytes, which this environment does not have",),
    )
