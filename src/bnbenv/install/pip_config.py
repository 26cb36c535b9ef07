"""Reads pip's configuration, files and variables, by pip's own rules of precedence."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.errors import UsageError
from bnbenv.install.settings import Setting

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# What decides where packages come from; everything else in pip's configuration is pip's own affair.
KEYS = frozenset(
    {
        "index-url",
        "extra-index-url",
        "find-links",
        "no-index",
        "trusted-host",
        "cert",
        "client-cert",
        "proxy",
        "keyring-provider",
    }
)
# How the files begin that bnbenv writes into its environments: they tell nothing of the user's wishes.
_OUR_MARK = "# bnbenv holds this environment"
# pip knows these option names as well.
_ALIASES = {"pypi-url": "index-url"}
# A command's own section beats [global], whichever file it stands in; bnbenv installs.
_SECTIONS = ("global", "install")


def read_pip(
    *,
    environ: Mapping[str, str],
    home: Path,
    prefixes: Iterable[Path],
    platform: str = sys.platform,
    root: Path = Path("/"),
) -> dict[str, Setting]:
    """The settings in force, by key.

    Args:
        environ: where ``PIP_*`` stand.
        home: the user's home directory.
        prefixes: environments whose own ``pip.conf`` counts, weakest first.
        platform: as `sys.platform` names it.
        root: under which the machine's own configuration lies.

    Raises:
        UsageError: a configuration file cannot be read.
    """
    chosen: dict[str, dict[str, Setting]] = {section: {} for section in _SECTIONS}
    for path in _files(environ, home, prefixes, platform, root):
        for section, settings in _read(path).items():
            if section in chosen:
                chosen[section].update(settings)
    merged: dict[str, Setting] = {}
    for section in _SECTIONS:
        merged.update(chosen[section])
    for name, value in environ.items():
        key = _key(name.removeprefix("PIP_")) if name.startswith("PIP_") else ""
        if key in KEYS and value:
            merged[key] = Setting(key=key, value=value, origin=f"variable {name}")
    return merged


def _files(
    environ: Mapping[str, str], home: Path, prefixes: Iterable[Path], platform: str, root: Path
) -> list[Path]:
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    basename = "pip.ini" if platform == "win32" else "pip.conf"
    files = [directory / basename for directory in _global_directories(environ, platform, root)]
    # A configuration file named by the variable replaces the user's own, not the machine's.
    if not (named and Path(named).exists()):
        legacy = home / ("pip" if platform == "win32" else ".pip")
        files += [legacy / basename, _user_directory(environ, home, platform) / basename]
    files += [prefix / basename for prefix in prefixes]
    if named:
        files.append(Path(named))
    return files


def _global_directories(environ: Mapping[str, str], platform: str, root: Path) -> list[Path]:
    if platform == "win32":
        return [Path(environ.get("PROGRAMDATA", "C:/ProgramData")) / "pip"]
    if platform == "darwin":
        return [root / "Library/Application Support/pip"]
    listed = environ.get("XDG_CONFIG_DIRS") or str(root / "etc" / "xdg")
    return [*(Path(part) / "pip" for part in listed.split(os.pathsep) if part), root / "etc"]


def _user_directory(environ: Mapping[str, str], home: Path, platform: str) -> Path:
    if platform == "win32":
        return Path(environ.get("APPDATA") or home / "AppData" / "Roaming") / "pip"
    if platform == "darwin" and (home / "Library/Application Support/pip").is_dir():
        return home / "Library/Application Support/pip"
    if platform == "darwin":
        return home / ".config" / "pip"
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip"


def _read(path: Path) -> dict[str, dict[str, Setting]]:
    import configparser
    import locale

    parser = configparser.RawConfigParser()
    try:
        # As pip reads and writes them: on Windows in the user's code page, not in UTF-8.
        text = path.read_text(encoding=locale.getpreferredencoding(do_setlocale=False))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(
            f"pip's configuration {path} cannot be read: {problem}",
            hint="mend the file, or leave it out with `PIP_CONFIG_FILE`",
        ) from problem
    if text.startswith(_OUR_MARK):
        return {}
    try:
        parser.read_string(text, source=str(path))
    except configparser.Error as problem:
        # The parser quotes the offending line, and a line of this file may hold a password.
        place = getattr(problem, "lineno", None)
        where = f"{path}, line {place}" if place else str(path)
        raise UsageError(
            f"pip's configuration {where} cannot be parsed",
            hint="`python -m pip config debug` shows the files that pip reads",
        ) from None
    found: dict[str, dict[str, Setting]] = {}
    for section in parser.sections():
        for name, value in parser.items(section):
            key = _key(name)
            if key in KEYS and value:
                origin = f"{path} [{section}]"
                found.setdefault(section, {})[key] = Setting(key=key, value=value, origin=origin)
    return found


def _key(name: str) -> str:
    key = name.lower().replace("_", "-").removeprefix("--")
    return _ALIASES.get(key, key)


def words(setting: Setting) -> tuple[str, ...]:
    """The values of an option that may be given more than once."""
    return tuple(str(setting.value).split())


def flag(setting: Setting) -> bool:
    """The value of a yes/no option.

    Raises:
        UsageError: it is neither.
    """
    text = str(setting.value).strip().lower()
    if text in {"1", "true", "yes", "on", "t", "y"}:
        return True
    if text in {"0", "false", "no", "off", "f", "n"}:
        return False
    raise UsageError(
        f"`{setting.key}` in {setting.origin} is neither yes nor no: {text!r}", hint="write `true` or `false`"
    )
