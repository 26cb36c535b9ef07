"""Finds uv, gives it a clean environment, runs it, and turns its failures into ours."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, field
from bnbenv.errors import ExternalError
from bnbenv.install.redact import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

# From this release on, locks, flat named indexes and `--config-file` are known to work as used here.
FLOOR = (0, 13)

# uv's own variables that say where and how, never what: all others could change the result of a command.
_KEPT_UV = re.compile(
    r"UV_(?:CACHE_DIR|NO_CACHE|CONCURRENT_\w+|HTTP_\w+|REQUEST_TIMEOUT|LOCK_TIMEOUT|UPLOAD_TIMEOUT"
    r"|KEYRING_PROVIDER|INDEX_\w+_(?:USERNAME|PASSWORD)|NATIVE_TLS|SYSTEM_CERTS|CREDENTIALS_DIR"
    r"|PYTHON_INSTALL_DIR|PYTHON_INSTALL_MIRROR|PYPY_INSTALL_MIRROR|PYTHON_DOWNLOADS(?:_JSON_URL)?|PYTHON_CACHE_DIR"
    r"|STACK_SIZE)"
)
# What uv tells whoever typed the command: advice about it, and one line for every package.
_NOISE = re.compile(r"\s*(?:Using (?:C?Python|PyPy)|Activate with|Creating virtual environment|[+~-] \S+==)")
_DROPPED = frozenset(
    {
        "VIRTUAL_ENV",
        "VIRTUAL_ENV_PROMPT",
        "CONDA_PREFIX",
        "CONDA_DEFAULT_ENV",
        "CONDA_PYTHON_EXE",
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONSTARTUP",
        "PYTHONPLATLIBDIR",
        "PYTHONEXECUTABLE",
        "PYTHONSAFEPATH",
        "PYTHONUSERBASE",
        "PYTHONNOUSERSITE",
        "PYTHONDONTWRITEBYTECODE",
        "__PYVENV_LAUNCHER__",
        "FORCE_COLOR",
        "CLICOLOR_FORCE",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A command that has ended, redacted, for the log.

    Attributes:
        arguments: the whole command line.
        returncode: negative where a signal ended it.
        seconds: wall time.
        stderr: what it said.
    """

    arguments: tuple[str, ...]
    returncode: int
    seconds: float
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Uv:
    """A uv that is new enough.

    Attributes:
        path: the program.
        version: as it names itself, such as ``0.13.9``.
        found: ``package`` (beside bnbenv) or ``PATH``.
        log: told of every command that has ended.
    """

    path: Path
    version: str
    found: str
    log: Callable[[Ran], None] | None = field(default=None, compare=False, repr=False)

    def run(
        self,
        arguments: Sequence[str],
        *,
        environ: Mapping[str, str],
        cwd: Path | None = None,
        pass_fds: Iterable[int] = (),
        report: Callable[[str], None] | None = None,
        extra: Mapping[str, str] | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Ran:
        """Run uv and wait for it.

        Args:
            arguments: without the program; never with a credential in them.
            environ: the caller's environment, which is scrubbed here.
            cwd: where relative paths start.
            pass_fds: descriptors of locks that uv holds as long as it lives.
            report: told each line of progress; the log has the rest as well.
            extra: variables to set after the scrubbing (credentials, certificates).
            meanwhile: done here while uv works; where it fails, uv is ended first.

        Raises:
            ExternalError: uv failed; its own words are in the message.
            EnvironmentProblem: uv found no interpreter.
        """
        env = scrub(environ)
        # Named outright, so that every call uses the one cache, whichever configuration file it reads.
        env["UV_CACHE_DIR"] = str(cache_directory(environ))
        env.update(extra or {})
        command = [str(self.path), *arguments]
        ran = _run(command, env=env, cwd=cwd, pass_fds=tuple(pass_fds), report=report, meanwhile=meanwhile)
        if self.log is not None:
            self.log(ran)
        if ran.returncode != 0:
            from bnbenv.install.uv_errors import uv_problem

            raise uv_problem(tuple(arguments), ran.returncode, ran.stderr)
        return ran


def find_uv(environ: Mapping[str, str], *, log: Callable[[Ran], None] | None = None) -> Uv:
    """The uv that came with bnbenv, else the one on PATH, if it is new enough.

    Raises:
        ExternalError: code ``tool-missing``; there is none, or it is too old, or it does not run.
    """
    too_old: list[str] = []
    for path, found in _candidates(environ):
        version = (_packaged_version() if found == "package" else None) or _version(path, environ)
        if version is None:
            too_old.append(f"{path} does not run")
        elif _numbers(version) < FLOOR:
            too_old.append(f"{path} is {version}")
        else:
            return Uv(path=path, version=version, found=found, log=log)
    floor = ".".join(map(str, FLOOR))
    told = "; ".join(too_old) or "none beside bnbenv and none on PATH"
    raise ExternalError(
        f"uv {floor} or newer is needed: {told}",
        code="tool-missing",
        hint=f'python -m pip install --upgrade "uv>={floor}"',
    )


def scrub(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what misleads uv; caches, proxies, certificates and credentials stay."""
    env: dict[str, str] = {}
    for name, value in environ.items():
        upper = name.upper()
        if upper in _DROPPED or (upper.startswith("UV_") and not _KEPT_UV.fullmatch(upper)):
            continue
        env[name] = value
    # Lines are parsed and may be wrapped in messages: no colours, and no guess at a terminal's width.
    env["NO_COLOR"] = "1"
    env["UV_NO_PROGRESS"] = "1"
    return env


def _candidates(environ: Mapping[str, str]) -> Iterable[tuple[Path, str]]:
    if packaged := _packaged():
        yield packaged, "package"
    import shutil

    if on_path := shutil.which("uv", path=environ.get("PATH")):
        yield Path(on_path), "PATH"


def _packaged() -> Path | None:
    """The program of the package beside bnbenv."""
    spec = find_spec("uv")
    if spec is None or spec.origin is None:
        return None
    # Where installers put the programs of a venv; the package asks for every place that there may be, which
    # takes as long as to start uv.
    place, beside = Path(spec.origin).parent, Path(sys.prefix, "bin", "uv")
    own = place == Path(sys.prefix, "lib", "python{}.{}".format(*sys.version_info), "site-packages", "uv")
    if os.name == "posix" and sys.prefix != sys.base_prefix and own and beside.is_file():
        return beside
    with contextlib.suppress(ImportError, FileNotFoundError):  # another module may have that name
        from uv import find_uv_bin

        return Path(find_uv_bin())
    return None


def _packaged_version() -> str | None:
    """The version of the package beside bnbenv, by its metadata: the program takes longer to tell its own."""
    spec = find_spec("uv")
    if spec is None or spec.origin is None:
        return None
    found: list[str] = []
    with contextlib.suppress(OSError):
        names = os.listdir(Path(spec.origin).parents[1])  # noqa: PTH208 - names are wanted
        found = [name for name in names if re.fullmatch(r"uv-.*\.dist-info", name)]
    return found[0][len("uv-") : -len(".dist-info")] if len(found) == 1 else None


def _version(path: Path, environ: Mapping[str, str]) -> str | None:
    try:
        done = subprocess.run(
            [str(path), "--version"],
            env=scrub(environ),
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.match(r"uv (\d+(?:\.\d+)+)", done.stdout)
    return match[1] if match else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _run(
    command: list[str],
    *,
    env: dict[str, str],
    cwd: Path | None,
    pass_fds: tuple[int, ...],
    report: Callable[[str], None] | None,
    meanwhile: Callable[[], None] | None,
) -> Ran:
    started = time.monotonic()
    inherit: dict[str, object] = {}
    if sys.platform == "win32":
        # Windows cannot pass chosen descriptors by number; locks there travel as inheritable handles.
        inherit["close_fds"] = not pass_fds
    else:
        inherit["pass_fds"] = pass_fds
    try:
        process = subprocess.Popen(  # type: ignore[call-overload]
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            **inherit,
        )
    except OSError as problem:
        raise ExternalError(
            f"cannot start {command[0]}: {problem.strerror or problem}", code="tool-failed"
        ) from problem
    out: list[str] = []
    reader = threading.Thread(target=lambda: out.extend(process.stdout), daemon=True)
    reader.start()
    err: list[str] = []
    failed = False
    try:
        if meanwhile is not None:
            meanwhile()
        for line in process.stderr:
            clean = redact(line.rstrip("\n"))
            err.append(clean)
            # An error is told once, by whoever catches it, not as progress too.
            failed = failed or clean.startswith("error:")
            if report is not None and not failed and clean.strip() and not _NOISE.match(clean):
                report(clean.strip())
        returncode = process.wait()
    except BaseException as error:
        # Ctrl-C reaches uv too where both stand in one process group; elsewhere it is told here.
        # uv must be gone before a caller sweeps what it was writing.
        _end(process, patience=2 if isinstance(error, KeyboardInterrupt) else 0)
        raise
    finally:
        reader.join(timeout=10)
        process.stdout.close()
        process.stderr.close()
    return Ran(
        arguments=tuple(redact(part) for part in command),
        returncode=returncode,
        seconds=time.monotonic() - started,
        stdout=redact("".join(out)),
        stderr="\n".join(err),
    )


def _end(process: subprocess.Popen[str], *, patience: float) -> None:
    """Let a process end by itself for `patience` seconds, then end it; who cannot wait ends it at once."""
    try:
        try:
            process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(timeout=5)
    except BaseException as error:  # Ctrl-C once more, or it does not listen
        process.kill()
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise


def cache_directory(environ: Mapping[str, str], *, cwd: Path | None = None) -> Path:
    """Where uv keeps its cache, by uv's documented rule; asks no process.

    Args:
        environ: the caller's variables.
        cwd: where uv looks for a project's settings, by default the working directory.

    Raises:
        UsageError: a configuration file of uv cannot be read.
    """
    from bnbenv.home import expanded
    from bnbenv.install.uv_config import read_uv

    if given := environ.get("UV_CACHE_DIR"):
        return Path(given).absolute()
    home = Path(environ.get("HOME") or environ.get("USERPROFILE") or Path.home())
    for setting in read_uv(environ=environ, home=home, cwd=cwd or Path.cwd()):
        if setting.key == "cache-dir":
            return expanded(str(setting.value), f"`cache-dir` in {setting.origin}").absolute()
    if os.name == "nt":
        return Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "uv" / "cache"
    return Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "uv"
