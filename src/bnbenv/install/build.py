"""Makes a virtual environment and fills it from a lock, by uv."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.errors import EnvironmentProblem
from bnbenv.install.uv_files import uv_variables, uv_workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from bnbenv.install.link_mode import Mode
    from bnbenv.install.sources import Sources
    from bnbenv.install.uv import Ran, Uv


def venv_python(venv: Path) -> Path:
    """The interpreter of a virtual environment, whichever platform made it."""
    windows = venv / "Scripts" / "python.exe"
    return windows if windows.exists() else venv / "bin" / "python"


def create_venv(
    uv: Uv,
    directory: Path,
    python: Path,
    *,
    environ: Mapping[str, str],
    prompt: str | None = None,
    allow_existing: bool = False,
    system_site_packages: bool = False,
    pass_fds: Iterable[int] = (),
    report: Callable[[str], None] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Ran:
    """Make an empty environment at its final path, from exactly this interpreter.

    Args:
        uv: the uv to drive.
        directory: made by uv; where `allow_existing`, other files in it are left alone.
        python: the interpreter's path; uv searches for none.
        environ: the caller's variables.
        prompt: shown by an activated shell.
        allow_existing: take a directory that is there.
        system_site_packages: let it see the packages of `python`.
        pass_fds: lock descriptors that uv holds while it writes.
        report: told each line of progress.
        meanwhile: done here while uv works.

    Raises:
        EnvironmentProblem: code ``python-missing``.
        ExternalError: uv failed.
    """
    if not python.exists():
        raise EnvironmentProblem(
            f"{python} does not exist", code="python-missing", hint="name an interpreter with `--python PATH`"
        )
    arguments = [
        "venv",
        str(directory),
        "--python",
        str(python),
        "--no-project",
        "--no-config",
        "--no-python-downloads",
    ]
    if prompt:
        arguments += ["--prompt", prompt]
    if allow_existing:
        arguments.append("--allow-existing")
    if system_site_packages:
        arguments.append("--system-site-packages")
    return uv.run(arguments, environ=environ, pass_fds=pass_fds, report=report, meanwhile=meanwhile)


def sync(
    uv: Uv,
    pylock: Path,
    venv: Path,
    sources: Sources,
    link_mode: Mode,
    *,
    environ: Mapping[str, str],
    refresh: Sequence[str] = (),
    platform: str | None = None,
    pass_fds: Iterable[int] = (),
    report: Callable[[str], None] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Ran:
    """Make the environment hold exactly what the lock says; every file is checked against its hash.

    Args:
        uv: the uv to drive.
        pylock: named ``pylock.toml`` or ``pylock.<name>.toml``, as the standard wants it.
        venv: the environment.
        sources: for credentials, certificates and trusted hosts; the lock alone says what is installed.
        link_mode: how files get from uv's cache into the environment.
        environ: the caller's variables.
        refresh: packages that are removed from uv's cache, fetched anew and installed again, because
            their cached files are damaged: uv checks a download once and its unpacked cache never.
        platform: uv's name of another machine's platform.
        pass_fds: lock descriptors that uv holds while it writes.
        report: told each line of progress.
        meanwhile: done here while uv works.

    Raises:
        ExternalError: uv failed (``hash-mismatch``, ``disk-full``, ``index-unreachable``, ``offline``, …).
    """
    with uv_workspace(sources) as directory:
        arguments = [
            "pip",
            "sync",
            str(pylock.absolute()),
            "--config-file",
            str(directory / "uv.toml"),
            "--python",
            str(venv_python(venv)),
            "--link-mode",
            link_mode,
            "--no-python-downloads",
            "--require-hashes",
            "--preview-features",
            "pylock",
        ]
        if platform:
            arguments += ["--python-platform", platform]
        if sources.offline:
            arguments.append("--offline")
        _forget_cached(uv, refresh, environ=environ, pass_fds=pass_fds, report=report)
        for name in refresh:
            arguments += ["--reinstall-package", name]
        return uv.run(
            arguments,
            environ=environ,
            pass_fds=pass_fds,
            report=report,
            extra=uv_variables(sources, environ),
            meanwhile=meanwhile,
        )


def _forget_cached(
    uv: Uv,
    names: Sequence[str],
    *,
    environ: Mapping[str, str],
    pass_fds: Iterable[int],
    report: Callable[[str], None] | None,
) -> None:
    """`--refresh-package` alone leaves a damaged unpacked wheel of a wheelhouse where it is."""
    if names:
        uv.run(["cache", "clean", *names, "--no-config"], environ=environ, pass_fds=pass_fds, report=report)


def stage(
    uv: Uv,
    pylock: Path,
    prefix: Path,
    python: Path,
    sources: Sources,
    link_mode: Mode,
    *,
    environ: Mapping[str, str],
    refresh: Sequence[str] = (),
    pass_fds: Iterable[int] = (),
    report: Callable[[str], None] | None = None,
) -> Ran:
    """Unpack what a lock names into a directory laid out like an environment; its scripts name `python`.

    Args:
        pylock: named ``pylock.toml`` or ``pylock.<name>.toml``.
        prefix: an empty directory.
        python: the interpreter that the files are for.
        refresh: as in `sync`.

    Raises:
        ExternalError: uv failed.
    """
    with uv_workspace(sources) as directory:
        _forget_cached(uv, refresh, environ=environ, pass_fds=pass_fds, report=report)
        arguments = [
            "pip",
            "install",
            "--requirements",
            str(pylock.absolute()),
            "--no-deps",
            "--prefix",
            str(prefix),
            "--python",
            str(python),
            "--break-system-packages",
            "--link-mode",
            link_mode,
            "--config-file",
            str(directory / "uv.toml"),
            "--no-python-downloads",
            "--require-hashes",
            "--preview-features",
            "pylock",
            *(["--offline"] if sources.offline else []),
        ]
        return uv.run(
            arguments,
            environ=environ,
            pass_fds=pass_fds,
            report=report,
            extra=uv_variables(sources, environ),
        )


def add(
    uv: Uv,
    requirements: Sequence[str],
    venv: Path,
    sources: Sources,
    link_mode: Mode,
    *,
    environ: Mapping[str, str],
    pass_fds: Iterable[int] = (),
) -> Ran:
    """Install exactly these requirements, without what they depend on.

    Args:
        requirements: lines of a requirements file, such as ``einops==0.8.1`` or ``-e /path``.
        venv: the environment.

    Raises:
        ExternalError: uv failed; which requirement was at fault is in its words.
    """
    with uv_workspace(sources) as directory:
        file = directory / "additions.txt"
        file.write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
        arguments = [
            "pip",
            "install",
            "--requirements",
            str(file),
            "--no-deps",
            "--python",
            str(venv_python(venv)),
            "--link-mode",
            link_mode,
            "--config-file",
            str(directory / "uv.toml"),
            "--no-python-downloads",
            *(["--offline"] if sources.offline else []),
        ]
        return uv.run(arguments, environ=environ, pass_fds=pass_fds, extra=uv_variables(sources, environ))
