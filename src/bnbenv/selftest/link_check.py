"""Loads the native library without a GPU: what can be proven of an environment built for another machine."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

from bnbenv.errors import EnvironmentProblem
from bnbenv.selftest.verdict import Check, Device, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# torch first: it brings the CUDA runtime libraries that bitsandbytes needs into the process.
# bitsandbytes itself is not imported: it would choose a library for *this* machine.
_SCRIPT = """
import ctypes, importlib.metadata, importlib.util, json, os, sys
answer = {}
def tell(**facts):
    answer.update(facts)
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(answer, file)
tell(step="import torch")
try:
    import torch
    tell(step="find bitsandbytes", torch=torch.__version__)
    found = importlib.util.find_spec("bitsandbytes")
    if found is None or not found.origin:
        raise ImportError("bitsandbytes is not installed")
    tell(bitsandbytes=importlib.metadata.version("bitsandbytes"))
    path = os.path.join(os.path.dirname(found.origin), sys.argv[1])
    tell(step="load " + sys.argv[1])
    ctypes.CDLL(path)
    tell(step=None)
except Exception as error:
    tell(error=type(error).__name__ + ": " + str(error))
"""
_LIMIT = 300.0  # seconds; the first import of torch from a network file system is slow


def link_check(
    python: Path, *, library: str | None, environ: Mapping[str, str], limit: float = _LIMIT
) -> Verdict:
    """Import torch and load one native library of bitsandbytes in a process of their own.

    Args:
        python: the environment's interpreter.
        library: the file that the loader would choose on the machine it is meant for; ``None`` if it
            would choose none.
        environ: the caller's environment.
        limit: seconds.

    Returns:
        `not-run` where the library loads, as nothing was computed; `failed` where it does not.

    Raises:
        EnvironmentProblem: the interpreter cannot be started.
    """
    started = time.monotonic()
    if library is None:
        check = Check(name="link", dtype="", state="failed", detail="the release holds no library for it")
        return _verdict(check, None, {}, started)
    answer, how = _ask(python, library, environ, limit)
    step, error = answer.get("step"), answer.get("error")
    sound = how is None and error is None and step is None and bool(answer)
    detail = None if sound else f"at `{step or 'the start'}`: {error or how or 'no answer'}"
    check = Check(
        name="link",
        dtype="",
        state="passed" if sound else "failed" if how is None else "crashed",
        detail=detail,
    )
    versions = {name: str(answer[name]) for name in ("torch", "bitsandbytes") if name in answer}
    return _verdict(check, library if sound else None, versions, started)


def _verdict(check: Check, library: str | None, versions: Mapping[str, str], started: float) -> Verdict:
    sound = check.state == "passed"
    return Verdict(
        verdict="not-run" if sound else "failed",
        level="quick",
        library=library,
        devices=(Device(device="link", name="no device", judged=False, checks=(check,)),),
        versions=versions,
        notes=(
            "nothing was computed: the library was only loaded"
            if sound
            else f"the native library does not load: {check.detail}",
        ),
        seconds=round(time.monotonic() - started, 2),
    )


def _ask(
    python: Path, library: str, environ: Mapping[str, str], limit: float
) -> tuple[Mapping[str, str | None], str | None]:
    """The child's answer, and how it died if it did."""
    import tempfile
    from pathlib import Path as LocalPath

    from bnbenv.selftest.child import Ended

    with tempfile.TemporaryDirectory(prefix="bnbenv-link-") as scratch:
        told = LocalPath(scratch, "answer.json")
        command = [str(python), "-I", "-B", "-c", _SCRIPT, library, str(told)]
        how: str | None = None
        try:
            ran = subprocess.run(
                command,
                env={**environ, "HF_HUB_OFFLINE": "1"},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=limit,
                check=False,
            )
            if ran.returncode != 0:
                how = Ended(returncode=ran.returncode, hang=None, stderr=ran.stderr).how
        except subprocess.TimeoutExpired:
            how = f"no answer within {limit:.0f} s"
        except OSError as error:
            raise EnvironmentProblem(
                f"{python} cannot be started: {error.strerror or error}",
                hint="bnbenv create PROFILE --name NAME builds it anew",
                code="state-broken",
            ) from error
        try:
            answer = json.loads(told.read_text("utf-8"))
        except (OSError, ValueError):
            answer = {}
        return answer, how
