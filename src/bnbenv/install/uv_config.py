"""Reads uv's settings that say where packages come from: `uv.toml`, `[tool.uv]` and `UV_*`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.errors import UsageError
from bnbenv.install.settings import Setting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

# Lists of a stronger file stand before those of a weaker one; of all other keys the strongest file's counts.
_LISTS = frozenset({"index", "extra-index-url", "find-links", "allow-insecure-host"})
# How uv works, not what it installs: handed on as they are.
PASSED = frozenset(
    {
        "native-tls",
        "system-certs",
        "http-proxy",
        "https-proxy",
        "no-proxy",
        "concurrent-downloads",
        "concurrent-installs",
        "concurrent-builds",
    }
)
_SCALARS = PASSED | frozenset(
    {
        "index-url",
        "no-index",
        "index-strategy",
        "keyring-provider",
        "offline",
        "exclude-newer",
        "link-mode",
        "cache-dir",
    }
)
_VARIABLES = {
    "UV_INDEX_URL": "index-url",
    "UV_DEFAULT_INDEX": "default-index",
    "UV_EXTRA_INDEX_URL": "extra-index-url",
    "UV_INDEX": "index",
    "UV_FIND_LINKS": "find-links",
    "UV_NO_INDEX": "no-index",
    "UV_INDEX_STRATEGY": "index-strategy",
    "UV_INSECURE_HOST": "allow-insecure-host",
    "UV_OFFLINE": "offline",
    "UV_EXCLUDE_NEWER": "exclude-newer",
    "UV_LINK_MODE": "link-mode",
    "UV_CACHE_DIR": "cache-dir",
}


def read_uv(
    *,
    environ: Mapping[str, str],
    home: Path,
    cwd: Path,
    platform: str = sys.platform,
    root: Path = Path("/"),
) -> tuple[Setting, ...]:
    """Every setting of a source, strongest first; a list key may come more than once.

    Values of ``index`` are tables (name, url, default, explicit, format); all others are text,
    a list of texts, or a boolean.

    Raises:
        UsageError: a file cannot be read or parsed.
    """
    settings: list[Setting] = []
    for variable, key in _VARIABLES.items():
        if value := environ.get(variable):
            settings.extend(_from_variable(variable, key, value))
    seen: set[str] = {setting.key for setting in settings}
    for path, table in _tables(environ, home, cwd, platform, root):
        # `[pip]` speaks for `uv pip`, which is what bnbenv drives, and so beats the table around it.
        for part, origin in ((table.get("pip"), f"{path} [pip]"), (table, str(path))):
            if not isinstance(part, dict):
                continue
            for key, value in part.items():
                if key in _LISTS and isinstance(value, list):
                    settings += [Setting(key=key, value=item, origin=origin) for item in value]
                elif key in _SCALARS and key not in seen:
                    seen.add(key)
                    settings.append(Setting(key=key, value=value, origin=origin))
    return tuple(settings)


def _from_variable(variable: str, key: str, value: str) -> Iterator[Setting]:
    origin = f"variable {variable}"
    if key in {"index", "default-index"}:
        for item in value.split() if key == "index" else [value]:
            name, separator, url = item.partition("=")
            # An address may hold `=` too, but what stands before it there is no name.
            table: dict[str, Any] = {"url": item}
            if separator and name.replace("-", "").replace("_", "").replace(".", "").isalnum():
                table = {"name": name, "url": url}
            if key == "default-index":
                table["default"] = True
            yield Setting(key="index", value=table, origin=origin)
    elif key == "find-links":
        for item in value.split(","):
            if item.strip():
                yield Setting(key=key, value=item.strip(), origin=origin)
    elif key in {"extra-index-url", "allow-insecure-host"}:
        for item in value.split():
            yield Setting(key=key, value=item, origin=origin)
    else:
        yield Setting(key=key, value=value, origin=origin)


def _tables(
    environ: Mapping[str, str], home: Path, cwd: Path, platform: str, root: Path
) -> Iterator[tuple[Path, dict[str, Any]]]:
    if environ.get("UV_NO_CONFIG"):
        return
    if named := environ.get("UV_CONFIG_FILE"):
        table = _read(Path(named))
        if table is None:
            raise UsageError(
                f"`UV_CONFIG_FILE` names {named}, which does not exist", hint="unset UV_CONFIG_FILE"
            )
        yield Path(named), table
        return
    yield from _project(cwd)
    if platform == "win32":
        user = Path(environ.get("APPDATA") or home / "AppData" / "Roaming") / "uv" / "uv.toml"
        system = [Path(environ.get("PROGRAMDATA", "C:/ProgramData")) / "uv" / "uv.toml"]
    else:
        user = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "uv" / "uv.toml"
        listed = environ.get("XDG_CONFIG_DIRS") or str(root / "etc" / "xdg")
        system = [Path(part) / "uv" / "uv.toml" for part in listed.split(os.pathsep) if part]
        system.append(root / "etc" / "uv" / "uv.toml")
    for path in (user, *system):
        table = _read(path)
        if table is not None:
            yield path, table
            if path != user:
                break  # uv takes the first system file alone


def _project(cwd: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The settings of the project around the working directory; the nearest file counts."""
    for directory in (cwd, *cwd.parents):
        table = _read(directory / "uv.toml")
        if table is not None:
            yield directory / "uv.toml", table
            return
        project = _read(directory / "pyproject.toml")
        inner = (project or {}).get("tool", {})
        if isinstance(inner, dict) and isinstance(inner.get("uv"), dict):
            yield directory / "pyproject.toml", inner["uv"]
            return


def _read(path: Path) -> dict[str, Any] | None:
    from bnbenv.toml import TOMLDecodeError, loads

    try:
        return loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        return None  # as uv: a project's file that belongs to somebody else says nothing to us
    except (OSError, UnicodeDecodeError, TOMLDecodeError) as problem:
        if path.name == "pyproject.toml":
            return None  # not written for us
        raise UsageError(
            f"uv's configuration {path} cannot be read: {problem}", hint=f"mend or delete {path}"
        ) from problem
