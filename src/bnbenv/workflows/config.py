"""The user's configuration: mirrors and habits, in one TOML file."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from bnbenv.dataclass import dataclass, field
from bnbenv.errors import UPGRADE, BnbenvError, EnvironmentProblem, ExternalError, UsageError
from bnbenv.home import expanded
from bnbenv.toml import TOMLDecodeError, loads
from bnbenv.workflows.request import LinkMode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.install.settings import Setting

SCHEMA = 1
LINK_MODES = get_args(LinkMode)
# Key → what it is for. Names of indexes and of their families are keys as well: they set mirrors.
SETTINGS: Mapping[str, str] = {
    "link-mode": f"how files come from uv's cache: {', '.join(LINK_MODES)}",
    "keep": "how many old generations of an environment are kept (default 1)",
}
_KEEP_DIGITS = 4
_MIRROR = "bnbenv config set pytorch https://…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the user has configured.

    Attributes:
        path: the file, whether it exists or not.
        mirrors: name of an index or of a family of indexes → address or directory.
        link_mode: ``None`` leaves it to bnbenv.
        keep: old generations to keep.
    """

    path: Path
    mirrors: Mapping[str, str] = field(default_factory=dict)
    link_mode: LinkMode | None = None
    keep: int = 1

    def to_dict(self) -> dict[str, Any]:
        """The settings as they stand in the file, by key."""
        data: dict[str, Any] = {}
        if self.link_mode is not None:
            data["link-mode"] = self.link_mode
        if self.keep != 1:
            data["keep"] = self.keep
        if self.mirrors:
            data["mirrors"] = dict(sorted(self.mirrors.items()))
        return data


def config_path(environ: Mapping[str, str] | None = None) -> Path:
    """``$BNBENV_HOME/config.toml`` where that is set, else the platform's configuration directory."""
    env = os.environ if environ is None else environ
    if home := env.get("BNBENV_HOME"):
        return expanded(home, "`BNBENV_HOME`").absolute() / "config.toml"
    import platformdirs

    return Path(platformdirs.user_config_dir("bnbenv", appauthor=False)) / "config.toml"


def read_config(environ: Mapping[str, str] | None = None) -> Config:
    """Read the configuration; an absent file is an empty one.

    Raises:
        EnvironmentProblem: code ``state-too-new``; a newer bnbenv wrote it.
        UsageError: the file is not TOML, or a value in it cannot be used.
    """
    path = config_path(environ)
    try:
        data = loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Config(path=path)
    except NotADirectoryError as error:
        raise UsageError(
            f"`{path.parent}` is to hold the configuration, but it is not a directory",
            hint="set `BNBENV_HOME`",
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the configuration `{path}` is not UTF-8: {error}", hint=f"mend or delete {path}"
        ) from error
    except OSError as error:
        if not os.path.lexists(path):  # a home that may not be entered, as in a container, is not the user's
            return Config(path=path)
        from bnbenv.env.durable import others

        other = others(path)
        whose = f"; it belongs to {other[1]}" if other and other[0] == path else ""
        raise ExternalError(
            f"the configuration `{path}` cannot be read: {(error.strerror or str(error)).lower()}{whose}",
            hint=f"chmod a+r {shlex.quote(str(path))}, by its owner, unless it holds a credential, "
            "which ~/.netrc can hold instead; or set `BNBENV_HOME` to a home of your own"
            if isinstance(error, PermissionError)
            else f"look at {path}",
            code="permission",
        ) from error
    except TOMLDecodeError as error:
        raise UsageError(
            f"the configuration `{path}` is not TOML: {error}", hint=f"mend or delete {path}"
        ) from error
    try:
        return _config(path, data)
    except UsageError as error:
        raise UsageError(f"{error.message}, in `{path}`", hint=f"mend or delete {path}") from error


def _config(path: Path, data: Mapping[str, Any]) -> Config:
    found = data.get("schema", SCHEMA)
    if type(found) is int and found > SCHEMA:  # to write it anew would lose what only that one knows
        raise EnvironmentProblem(
            f"the configuration `{path}` was written by a newer bnbenv (schema {found}, "
            f"this one reads up to {SCHEMA})",
            hint=UPGRADE,
            code="state-too-new",
        )
    mirrors = data.get("mirrors", {})
    if not isinstance(mirrors, dict):
        raise UsageError("`mirrors` is no table", hint=_MIRROR)
    link_mode = data.get("link-mode")
    return Config(
        path=path,
        mirrors={name: checked_mirror(name, value) for name, value in mirrors.items()},
        link_mode=None if link_mode is None else _link_mode(link_mode),
        keep=_keep(data.get("keep", 1)),
    )


def read_others(environ: Mapping[str, str] | None = None) -> tuple[Setting, ...]:
    """The settings of uv and pip that bnbenv honours, each with where it was read; uv's first.

    Raises:
        UsageError: one of their files cannot be read.
    """
    from bnbenv.install.pip_config import read_pip
    from bnbenv.install.uv_config import read_uv

    env = os.environ if environ is None else environ
    active = env.get("VIRTUAL_ENV")
    prefixes = [Path(sys.prefix), *([Path(active)] if active else [])]  # as the sources are read
    home = Path.home()
    uv = read_uv(environ=env, home=home, cwd=Path.cwd())
    return (*uv, *read_pip(environ=env, home=home, prefixes=prefixes).values())


def set_value(config: Config, key: str, value: str, indexes: frozenset[str]) -> Config:
    """`config` with one setting changed; `indexes` are the names and families that may have a mirror.

    Raises:
        UsageError: there is no such key, or the value cannot be used.
    """
    match key:
        case "link-mode":
            return _with(config, link_mode=_link_mode(value))
        case "keep":
            return _with(config, keep=_keep(value))
        case _ if key in indexes:
            mirror = checked_mirror(key, value)
            _refuse_insecure(key, mirror)
            return _with(config, mirrors={**config.mirrors, key: mirror})
        case _:
            raise _unknown(key, indexes)


def unset_value(config: Config, key: str, indexes: frozenset[str]) -> Config:
    """`config` without one setting.

    Raises:
        UsageError: there is no such key.
    """
    match key:
        case "link-mode":
            return _with(config, link_mode=None)
        case "keep":
            return _with(config, keep=1)
        case _ if key in indexes or key in config.mirrors:
            return _with(config, mirrors={name: at for name, at in config.mirrors.items() if name != key})
        case _:
            raise _unknown(key, indexes)


def write_config(config: Config) -> None:
    """Write the file, readable by its owner alone where an address in it holds a credential.

    Without one it is for all who share the home, as the umask has it, unless its owner has closed it to them.

    Raises:
        ExternalError: it cannot be written.
    """
    import tomli_w

    from bnbenv.env import durable

    text = tomli_w.dumps({"schema": SCHEMA, **config.to_dict()})
    with durable.told(config.path.parent, "create"):
        config.path.parent.mkdir(parents=True, exist_ok=True)
    closed = _holds_credential(config) or _was_closed(config.path)
    durable.write_whole(config.path, text.encode(), mode=0o600 if closed else 0o666)


def _holds_credential(config: Config) -> bool:
    from bnbenv.install.redact import redact

    return any(redact(mirror) != mirror for mirror in config.mirrors.values())


def _was_closed(path: Path) -> bool:
    """Whether its owner alone may read it though no credential is known in it: a path may hold one."""
    try:
        closed = not path.stat().st_mode & 0o077
        return closed and not _holds_credential(_config(path, loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, BnbenvError):
        return False


def checked_mirror(name: str, value: object) -> str:
    """An address or directory that may stand for an index; whether it is safe is asked as it is used.

    Raises:
        UsageError: it is neither.
    """
    from urllib.parse import urlsplit

    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"the mirror of `{name}` is no address", hint=_MIRROR)
    text = value.strip()
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the mirror of `{name}` is not valid text: {text!r}", hint=_MIRROR) from error
    try:
        scheme = urlsplit(text).scheme
    except ValueError as error:
        raise UsageError(f"the mirror of `{name}` is no address: {error}", hint=_MIRROR) from error
    if scheme in {"https", "http", "file"}:
        return text
    # A drive letter is no scheme.
    if "://" not in text and expanded(text, f"the mirror of `{name}`").is_absolute():
        return text
    raise UsageError(
        f"the mirror of `{name}` is neither an https address nor an absolute directory: `{text}`",
        hint=_MIRROR,
    )


def _refuse_insecure(name: str, mirror: str) -> None:
    """Refuse a mirror that would be refused later; a directory is safe."""
    from bnbenv.install.addresses import refuse_insecure
    from bnbenv.install.sources import trusted_hosts

    if mirror.lower().startswith("http:"):
        refuse_insecure(mirror, origin=f"the mirror of `{name}`", trusted=trusted_hosts(read_others()))


def _with(config: Config, **changes: Any) -> Config:
    from bnbenv.dataclass import replace

    return replace(config, **changes)


def _link_mode(value: object) -> LinkMode:
    if value not in LINK_MODES:
        raise UsageError(
            f"`link-mode` is one of {', '.join(f'`{mode}`' for mode in LINK_MODES)}, not `{value}`",
            hint="bnbenv config set link-mode auto",
        )
    return cast("LinkMode", value)


def _keep(value: object) -> int:
    text = str(value)
    # `isdigit` alone takes `²`, and TOML holds no number of any length.
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) <= _KEEP_DIGITS):
        raise UsageError(
            f"`keep` is a number of generations from 0 to 9999, not `{value}`",
            hint="bnbenv config set keep 1",
        )
    return int(text)


def check_key(key: str, indexes: frozenset[str]) -> None:
    """Refuse a key that nothing is ever set under.

    Raises:
        UsageError: there is no such key; names the nearest.
    """
    if key not in SETTINGS and key not in indexes:
        raise _unknown(key, indexes)


def _unknown(key: str, indexes: frozenset[str]) -> UsageError:
    from difflib import get_close_matches

    from bnbenv.install.sources import DEFAULT

    if key == DEFAULT:
        return UsageError(
            f"`{DEFAULT}` has no mirror here: bnbenv takes the default index from the settings of pip and uv",
            hint="pip config set global.index-url URL, or the variable UV_DEFAULT_INDEX",
        )
    known = [*SETTINGS, *sorted(indexes)]
    near = get_close_matches(key, known, n=1)
    return UsageError(
        f"there is no setting `{key}`" + (f"; did you mean `{near[0]}`?" if near else ""),
        hint="bnbenv config, which lists every key",
    )
