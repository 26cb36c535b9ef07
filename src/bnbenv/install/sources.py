"""Where packages come from: pip's, uv's and bnbenv's configuration made into one value."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bnbenv.dataclass import dataclass, field, replace
from bnbenv.errors import UsageError
from bnbenv.home import expanded
from bnbenv.install import addresses
from bnbenv.install.pip_config import flag, read_pip, words
from bnbenv.install.redact import Credential, redact, split_credential
from bnbenv.install.uv_config import PASSED, read_uv

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from bnbenv.install.settings import Setting
    from bnbenv.matrix.rows import IndexRow

Role = Literal["default", "extra", "flat", "explicit"]
Strategy = Literal["first-index", "unsafe-first-match", "unsafe-best-match"]
_STRATEGIES: tuple[Strategy, ...] = ("first-index", "unsafe-first-match", "unsafe-best-match")

_GENERAL: dict[str, Role] = {"extra-index-url": "extra", "find-links": "flat"}

DEFAULT = "pypi"
_MIRRORS_ORIGIN = "bnbenv's configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A place that has packages.

    Attributes:
        name: by which requirements are pinned to it and credentials are found.
        url: without credentials; ``None`` is the default of the client libraries.
        role: ``default`` and ``extra`` serve any package, ``flat`` is a find-links directory or page that
            does too, ``explicit`` serves only what is pinned to it.
        origin: the file, variable or table that named it.
        credential: where the address held one.
        family: of an index of the matrix, such as ``pytorch``.
        companions: packages that must come from it together with torch.
        shared: a mirror that carries every build of its family under one address.
        flat: a directory or page of files, not a tree of pages.
    """

    name: str
    url: str | None
    role: Role
    origin: str
    credential: Credential | None = None
    family: str | None = None
    companions: tuple[str, ...] = ()
    shared: bool = False
    flat: bool = False

    @property
    def directory(self) -> Path | None:
        """The directory of a ``file://`` address."""
        return addresses.file_path(self.url) if self.url else None

    @property
    def local(self) -> bool:
        """Whether it needs no network."""
        return self.directory is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """All that the user configured about where packages come from.

    Attributes:
        indexes: in order of precedence: extra, flat, the default, then explicit ones.
        strategy: how uv chooses among indexes that have the same package. pip takes the best version
            of all of them, so indexes of pip's configuration are read that way; uv's own setting wins.
        no_index: only find-links may be used; `no_index_origin` says who wants it.
        offline: no network.
        trusted_hosts: hosts whose certificate is not checked and that may speak plain http.
        passed: uv's settings of how it works, such as ``system-certs``, as TOML has them.
        notes: what was left out and why.
    """

    indexes: tuple[Index, ...]
    strategy: Strategy = "first-index"
    no_index: bool = False
    no_index_origin: str | None = None
    offline: bool = False
    trusted_hosts: tuple[str, ...] = ()
    cert: Path | None = None
    client_cert: Path | None = None
    proxy: str | None = field(default=None, repr=False)
    keyring: str | None = None
    exclude_newer: str | None = None
    link_mode: str | None = None
    passed: Mapping[str, Any] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()

    @property
    def default(self) -> Index | None:
        """The index that is asked last; ``None`` under no-index."""
        return next((index for index in self.indexes if index.role == "default"), None)

    def with_role(self, *roles: Role) -> tuple[Index, ...]:
        """The indexes that play one of the roles, in order."""
        return tuple(index for index in self.indexes if index.role in roles)

    def find(self, name: str) -> Index:
        """The index of that name.

        Raises:
            UsageError: there is none.
        """
        for index in self.indexes:
            if index.name == name:
                return index
        known = ", ".join(f"`{index.name}`" for index in self.indexes)
        raise UsageError(f"no index is called `{name}`; known are {known or 'none'}", hint="bnbenv config")

    def going_offline(self) -> Sources:
        """The same without any use of the network."""
        return replace(self, offline=True)


def read_sources(
    *,
    environ: Mapping[str, str],
    cwd: Path,
    home: Path | None = None,
    index_rows: Sequence[IndexRow] = (),
    mirrors: Mapping[str, str] | None = None,
    offline: bool = False,
    prefixes: Iterable[Path] | None = None,
    platform: str = sys.platform,
    root: Path = Path("/"),
) -> Sources:
    """Read every configuration that says where packages come from.

    Args:
        environ: the caller's variables.
        cwd: where relative paths start, and where uv looks for a project's settings.
        home: the user's home directory; by default that of the process.
        index_rows: the indexes of the matrix.
        mirrors: index name, or family name for one address that carries all builds → address.
        offline: use no network, whatever is configured.
        prefixes: environments whose ``pip.conf`` counts; by default the active one and this Python's.
        platform: as `sys.platform` names it.
        root: under which the machine's own configuration lies.

    Raises:
        UsageError: a file cannot be read, a value makes no sense, or an address is plain http
            (code ``insecure-index``).
    """
    if prefixes is None:
        active = environ.get("VIRTUAL_ENV")
        prefixes = [Path(sys.prefix), *([Path(active)] if active else [])]
    home = home or Path.home()
    pip = read_pip(environ=environ, home=home, prefixes=prefixes, platform=platform, root=root)
    uv = read_uv(environ=environ, home=home, cwd=cwd, platform=platform, root=root)
    by_key: dict[str, Setting] = {}
    for setting in uv:
        by_key.setdefault(setting.key, setting)

    reader = _Reader(cwd=cwd, environ=environ, trusted=trusted_hosts((*uv, *pip.values())))
    named = _general(reader, pip, uv)
    reader.indexes = [_as_row(index, index_rows) for index in reader.indexes]
    explicit = _explicit(reader, index_rows, mirrors or {}, named)
    no_index = next(
        (setting for setting in (by_key.get("no-index"), pip.get("no-index")) if setting and flag(setting)),
        None,
    )
    if no_index is not None:
        reader.indexes = [index for index in reader.indexes if index.role == "flat"]
        explicit = []
    order = {"extra": 0, "flat": 1, "default": 2, "explicit": 3}
    indexes = sorted([*reader.indexes, *explicit], key=lambda index: order[index.role])
    configured_offline = by_key.get("offline")
    return Sources(
        indexes=tuple(indexes),
        strategy=_strategy(by_key, pip),
        no_index=no_index is not None,
        no_index_origin=no_index.origin if no_index else None,
        offline=offline or bool(configured_offline and flag(configured_offline)),
        trusted_hosts=reader.trusted,
        cert=_path(pip, "cert", cwd),
        client_cert=_path(pip, "client-cert", cwd),
        proxy=str(pip["proxy"].value) if "proxy" in pip else None,
        keyring=_keyring(by_key, pip),
        exclude_newer=str(by_key["exclude-newer"].value) if "exclude-newer" in by_key else None,
        link_mode=str(by_key["link-mode"].value) if "link-mode" in by_key else None,
        passed={key: by_key[key].value for key in sorted(PASSED & set(by_key))},
        notes=tuple(reader.notes),
    )


@dataclass(slots=True)
class _Reader:
    """Collects indexes, each address once, under unique names."""

    cwd: Path
    environ: Mapping[str, str]
    trusted: tuple[str, ...]
    indexes: list[Index] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self, value: str, *, role: Role, origin: str, name: str | None = None, known_as: str | None = None
    ) -> Index | None:
        """Take an index in; a directory that is missing is noted and left out, as pip does.

        `known_as` is the name that uv's configuration gives to what is called `name` here: uv's variables
        for its credential carry that one.
        """
        url, credential = self.address(value, origin)
        directory = addresses.file_path(url)
        if directory is not None and not directory.exists():
            self.notes.append(f"`{directory}` ({origin}) does not exist and is left out")
            return None
        if any((index.url, index.role == "flat") == (url, role == "flat") for index in self.indexes):
            return None
        index = Index(
            name=self._unique(name or addresses.name_for(url, flat=role == "flat")),
            url=url,
            role=role,
            origin=origin,
            credential=credential,
            flat=role == "flat",
        )
        if credential is None and known_as:
            index = replace(index, credential=self._credential(replace(index, name=known_as)))
        self.indexes.append(index)
        return index

    def address(self, value: str, origin: str) -> tuple[str, Credential | None]:
        """The address without its credential, if it is safe."""
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"an address in {origin} is not valid text: {value!r}", hint="write it again there, in UTF-8"
            ) from error
        url, credential = split_credential(addresses.to_url(value, self.cwd))
        addresses.refuse_insecure(url, origin=origin, trusted=self.trusted)
        return url, credential

    def _credential(self, index: Index) -> Credential | None:
        from bnbenv.install.uv_files import credential_variables

        username, password = (self.environ.get(name, "") for name in credential_variables(index))
        return Credential(username=username, password=password) if username or password else None

    def _unique(self, name: str) -> str:
        taken = {index.name for index in self.indexes}
        candidate, number = name, 2
        while candidate in taken:
            candidate, number = f"{name}-{number}", number + 1
        return candidate


def _general(reader: _Reader, pip: Mapping[str, Setting], uv: Sequence[Setting]) -> dict[str, Setting]:
    """Take in all indexes that serve any package; return uv's explicit ones by name."""
    _refuse_tables_without_address(uv)
    # The default first: an extra index of the same address adds nothing.
    default = next((found for found in map(_default_of, uv) if found), None)
    if default is None and "index-url" in pip:
        default = (str(pip["index-url"].value).strip(), pip["index-url"].origin, None)
    if default is None:
        reader.indexes.append(
            Index(name=DEFAULT, url=None, role="default", origin="the default of uv and pip")
        )
    else:
        url, origin, known_as = default
        if reader.add(url, role="default", origin=origin, name=DEFAULT, known_as=known_as) is None:
            raise UsageError(
                f"the default index {redact(url)} ({origin}) does not exist",
                hint="name another there, or take it out",
            )
    explicit = _uv_general(reader, uv)
    for key, role in _GENERAL.items():
        if key in pip:
            for value in words(pip[key]):
                reader.add(value, role=role, origin=pip[key].origin)
    return explicit


def _uv_general(reader: _Reader, uv: Sequence[Setting]) -> dict[str, Setting]:
    explicit: dict[str, Setting] = {}
    for setting in uv:
        if setting.key == "index":
            name = setting.value.get("name")
            if setting.value.get("explicit") and isinstance(name, str):
                explicit.setdefault(name, setting)
            elif not setting.value.get("default"):
                role: Role = "flat" if setting.value.get("format") == "flat" else "extra"
                reader.add(setting.value["url"], role=role, origin=setting.origin, name=name)
        elif setting.key in _GENERAL:
            reader.add(str(setting.value), role=_GENERAL[setting.key], origin=setting.origin)
    return explicit


def _default_of(setting: Setting) -> tuple[str, str, str | None] | None:
    """The address of the default index, what names it, and the name it has there."""
    if setting.key == "index-url":
        return str(setting.value), setting.origin, None
    if setting.key == "index" and setting.value.get("default"):
        return setting.value["url"], setting.origin, setting.value.get("name")
    return None


def _refuse_tables_without_address(uv: Iterable[Setting]) -> None:
    for setting in uv:
        if setting.key == "index" and not (
            isinstance(setting.value, dict) and isinstance(setting.value.get("url"), str)
        ):
            raise UsageError(
                f"an `index` in {setting.origin} has no address", hint="give it a `url`, or take it out"
            )


def _explicit(
    reader: _Reader,
    rows: Sequence[IndexRow],
    mirrors: Mapping[str, str],
    named: Mapping[str, Setting],
) -> list[Index]:
    known = {row.name for row in rows} | {row.family for row in rows}
    if strange := sorted(set(mirrors) - known):
        raise UsageError(
            f"{_MIRRORS_ORIGIN} names a mirror for `{strange[0]}`, which is no index",
            hint=f"use one of: {', '.join(sorted(known))}",
        )
    found = []
    for row in rows:
        if row.url is None:
            continue
        value, origin, shared = row.url, "compat/indexes.toml", False
        if row.name in mirrors:
            value, origin = mirrors[row.name], _MIRRORS_ORIGIN
        elif row.family in mirrors:
            value, origin, shared = mirrors[row.family], _MIRRORS_ORIGIN, True
        elif row.name in named:
            value, origin = named[row.name].value["url"], named[row.name].origin
        url, credential = reader.address(value, origin)
        found.append(
            Index(
                name=row.name,
                url=url,
                role="explicit",
                origin=origin,
                credential=credential,
                family=row.family,
                companions=row.companions,
                shared=shared,
                flat=addresses.is_wheelhouse(url),
            )
        )
    return found


def _as_row(index: Index, rows: Sequence[IndexRow]) -> Index:
    """The default index with what the matrix knows of it."""
    for row in rows:
        if index.role == "default" and row.url is None and row.name == index.name:
            return replace(index, family=row.family, companions=row.companions)
    return index


def trusted_hosts(settings: Iterable[Setting]) -> tuple[str, ...]:
    """The hosts that settings of uv and pip trust, each once."""
    hosts: list[str] = []
    for setting in settings:
        if setting.key == "allow-insecure-host":
            hosts.append(str(setting.value))
        elif setting.key == "trusted-host":
            hosts += words(setting)
    return tuple(dict.fromkeys(hosts))


def _strategy(uv: Mapping[str, Setting], pip: Mapping[str, Setting]) -> Strategy:
    if (setting := uv.get("index-strategy")) is not None:
        for known in _STRATEGIES:
            if setting.value == known:
                return known
        raise UsageError(
            f"`index-strategy` in {setting.origin} is {setting.value!r}",
            hint=f"use one of {', '.join(_STRATEGIES)}",
        )
    return "unsafe-best-match" if "extra-index-url" in pip or "find-links" in pip else "first-index"


def _path(pip: Mapping[str, Setting], key: str, cwd: Path) -> Path | None:
    if key not in pip:
        return None
    setting = pip[key]
    path = cwd / expanded(str(setting.value).strip(), f"`{key}` in {setting.origin}")
    if not path.exists():
        raise UsageError(
            f"`{key}` in {setting.origin} names {path}, which does not exist",
            hint="name another there, or take it out",
        )
    return path


def _keyring(uv: Mapping[str, Setting], pip: Mapping[str, Setting]) -> str | None:
    if "keyring-provider" in uv:
        return str(uv["keyring-provider"].value)
    # Of pip's providers uv knows this one; with `auto` and `import` pip looks in its own interpreter.
    if "keyring-provider" in pip and pip["keyring-provider"].value == "subprocess":
        return "subprocess"
    return None
