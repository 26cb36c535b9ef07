"""What is installed in an environment, read from its files alone: no process starts, nothing is imported."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bnbenv.dataclass import dataclass, field
from bnbenv.env import durable
from bnbenv.env.layout import FACTS
from bnbenv.errors import EnvironmentProblem
from bnbenv.names import normalized as normalized  # noqa: PLC0414 - whoever reads installations compares names
from bnbenv.units import minor_release

if TYPE_CHECKING:
    from collections.abc import Iterator

EnvironmentKind = Literal["bnbenv", "venv", "conda", "system"]

_HEAD = 4096  # bytes of METADATA that hold Name and Version in every wheel seen; else the rest is read
_LARGEST_PATH_FILE = 1 << 20  # bytes
# The line by which bnbenv lets an environment see its base; the directory is a literal of Python's.
_BASE_LINE = re.compile(r"""import site; site\.addsitedir\(('(?:[^'\\]|\\.)+'|"(?:[^"\\]|\\.)+")\)""")
_LARGEST_METADATA = 16 << 20  # bytes
_PYTHON_DIRECTORY = re.compile(r"python(3\.\d+)t?")
_WINDOWS_LIBRARY = re.compile(r"python3(\d{1,2})\.dll", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """One installed package.

    Attributes:
        name: normalized (PEP 503).
        version: as its metadata says; ``""`` where they are damaged.
        installer: ``uv``, ``pip``, ``conda``, …, or ``None``.
        direct_url: the URL it was installed from, where not from an index.
        editable: whether its code stands elsewhere.
        has_record: whether RECORD is there; without it uv and pip see no package.
        location: the directory on ``sys.path`` it was found in.
        metadata: its ``.dist-info`` or ``.egg-info``.
    """

    name: str
    version: str
    installer: str | None
    direct_url: str | None
    editable: bool
    has_record: bool
    location: Path
    metadata: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """An environment and its packages.

    Attributes:
        prefix: the environment's directory.
        kind: who made it.
        python: full version where the files tell it, else the minor one, else ``None``.
        site_packages: the directories read, in the order of ``sys.path``.
        system_site: whether it sees the packages of its base too (those are not listed).
        base: the directory of the base interpreter, of a venv.
        distributions: in the order in which Python would find them; a name may come twice.
    """

    prefix: Path
    kind: EnvironmentKind
    python: str | None
    site_packages: tuple[Path, ...]
    distributions: tuple[Distribution, ...]
    system_site: bool = False
    base: Path | None = None
    _index: dict[str, Distribution] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for distribution in self.distributions:
            self._index.setdefault(distribution.name, distribution)

    def find(self, name: str) -> Distribution | None:
        """The copy of a package that Python would import; any spelling of the name."""
        return self._index.get(normalized(name))

    def copies(self, name: str) -> tuple[Distribution, ...]:
        """Every copy of a package; more than one is a fault."""
        wanted = normalized(name)
        return tuple(found for found in self.distributions if found.name == wanted)

    @property
    def minor(self) -> str | None:
        """The minor version of its Python, such as ``3.12``."""
        return minor_release(self.python) if self.python else None

    @property
    def versions(self) -> dict[str, str]:
        """Name → version, of what would be imported."""
        return {name: found.version for name, found in self._index.items()}


def equal_versions(one: str, other: str) -> bool:
    """Whether two spellings name one version: ``2024.08.30`` and ``2024.8.30``; a local part counts."""
    if one == other:
        return True
    from packaging.version import InvalidVersion, Version

    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return False


def read_installed(environment: Path, *, interpreter: Path | None = None) -> Installed:
    """Read a venv, a conda environment or the prefix of any Python.

    Args:
        environment: its directory, a link to it, its interpreter, or a site-packages directory.
        interpreter: which of several Pythons in one prefix is meant; a link to it from elsewhere will do.

    Raises:
        EnvironmentProblem: code ``no-environment``; there is no Python environment.
    """
    prefix, kind, config, sites = _look(environment, interpreter)
    minor = _minor_of(interpreter or environment, prefix)
    distributions: list[Distribution] = []
    read: list[Path] = []
    for site in sites:
        for directory in (site, *_pth_directories(site)):
            if directory not in read:
                read.append(directory)
                distributions.extend(_distributions(directory))
    home = (config or {}).get("home")
    return Installed(
        prefix=prefix,
        kind=kind,
        python=_python_version(prefix, config, sites) or minor,
        site_packages=tuple(read),
        distributions=tuple(distributions),
        system_site=(config or {}).get("include-system-site-packages", "").lower() == "true",
        base=Path(home) if home else None,
    )


def is_externally_managed(prefix: Path) -> bool:
    """Whether a Python belongs to the system's package manager (PEP 668): pip and uv change nothing in it."""
    if (prefix / "pyvenv.cfg").is_file():
        return False
    directories = (prefix / "Lib", *prefix.glob("lib*/python3*"))
    return any((directory / "EXTERNALLY-MANAGED").is_file() for directory in directories)


def kind_of(environment: Path) -> EnvironmentKind:
    """Who made an environment; its packages are not read.

    Args:
        environment: as for `read_installed`.

    Raises:
        EnvironmentProblem: code ``no-environment``; there is no Python environment.
    """
    return _look(environment)[1]


def _look(
    environment: Path, interpreter: Path | None = None
) -> tuple[Path, EnvironmentKind, dict[str, str] | None, tuple[Path, ...]]:
    """Prefix, kind, what `pyvenv.cfg` says, and the directories of packages."""
    prefix = _prefix(environment)
    config = read_pyvenv(prefix)
    sites = _of_one_python(_site_directories(prefix), _minor_of(interpreter or environment, prefix), prefix)
    if environment.name in {"site-packages", "dist-packages"} and environment.is_dir():
        sites = (environment,)
    conda = (prefix / "conda-meta").is_dir()
    if not sites and config is None and not conda:
        raise EnvironmentProblem(
            f"there is no Python environment at `{environment}`",
            hint="name the directory of a venv or conda environment, or its `python`",
        )
    kind: EnvironmentKind = "system"
    if (prefix / FACTS / "state.json").is_file():
        kind = "bnbenv"
    elif config is not None:
        kind = "venv"
    elif conda:
        kind = "conda"
    return prefix, kind, config, sites


def with_base(installed: Installed, *, user_site: Path | None = None) -> Installed:
    """The same with what the environment sees of its base, behind its own.

    That is what `bnbenv create --base` joined to it, and the base's packages of a venv that includes them.

    Args:
        user_site: the user's own site-packages, which comes before all of them.
    """
    seen = [
        joined
        for site in installed.site_packages
        for name in durable.names_in(site)
        if name.endswith(".pth")
        for line in _lines(site / name)
        if (joined := _joined_by(line)) is not None
    ]
    if installed.system_site and installed.base is not None:
        base = installed.base
        prefix = base.parent if base.name in {"bin", "Scripts"} else base
        seen += _of_one_python(_site_directories(prefix), installed.minor, prefix)
    read = list(installed.site_packages)
    distributions = list(installed.distributions)
    for site in seen:
        for directory in (site, *_pth_directories(site)):
            if directory not in read and directory.is_dir():
                read.append(directory)
                distributions.extend(_distributions(directory))
    if user_site is not None:
        read.insert(0, user_site)
        distributions[:0] = _distributions(user_site)
    if len(read) == len(installed.site_packages):
        return installed
    return Installed(
        prefix=installed.prefix,
        kind=installed.kind,
        python=installed.python,
        site_packages=tuple(read),
        distributions=tuple(distributions),
        system_site=installed.system_site,
        base=installed.base,
    )


def _joined_by(line: str) -> Path | None:
    """The directory of the base that a line of a path file joins to the environment."""
    from ast import literal_eval

    if (match := _BASE_LINE.fullmatch(line)) is None:
        return None
    try:
        path: str = literal_eval(match[1])
    except (SyntaxError, ValueError):
        return None
    return None if "\0" in path else Path(path)


def _prefix(environment: Path) -> Path:
    if environment.is_dir():
        if environment.name in {"site-packages", "dist-packages"}:
            above = environment.parent
            return above.parent.parent if above.name.lower() != "lib" else above.parent
        return environment
    # The interpreter of a venv is a link to another one: its own directory counts, not the target's.
    parent = environment.parent
    return parent.parent if parent.name in {"bin", "Scripts"} else parent


def read_pyvenv(prefix: Path) -> dict[str, str] | None:
    """What `pyvenv.cfg` says, keys in lower case; ``None`` where there is none that can be read."""
    if not (prefix / "pyvenv.cfg").is_file():
        return None
    pairs = (line.partition("=") for line in _lines(prefix / "pyvenv.cfg") if "=" in line)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _site_directories(prefix: Path) -> tuple[Path, ...]:
    found: list[Path] = []
    # Debian's Pythons look into local/ first, and their own packages stand in dist-packages.
    for below in ("local/lib", "lib", "lib64"):
        library = prefix / below
        for name in sorted(durable.names_in(library), key=_by_version, reverse=True):
            if _PYTHON_DIRECTORY.fullmatch(name) or name == "python3":
                found += [library / name / "site-packages", library / name / "dist-packages"]
    found.append(prefix / "Lib" / "site-packages")
    seen: dict[str, Path] = {}
    for site in found:
        if site.is_dir():
            seen.setdefault(os.path.realpath(site), site)
    return tuple(seen.values())


def _minor_of(environment: Path, prefix: Path) -> str | None:
    """The minor version of the interpreter that is named, else of the prefix's own, by its real name."""
    own = prefix / "bin" / "python3"
    for interpreter in (own,) if environment.is_dir() else (environment, own):
        if match := _PYTHON_DIRECTORY.fullmatch(os.path.basename(os.path.realpath(interpreter))):  # noqa: PTH119
            return match[1]
    return None


def _of_one_python(sites: tuple[Path, ...], minor: str | None, prefix: Path) -> tuple[Path, ...]:
    """Without the directories of other Pythons that share the prefix, as in `/usr` and Homebrew's."""

    def is_of(site: Path) -> bool | None:
        match = _PYTHON_DIRECTORY.fullmatch(site.parent.name)
        return match[1] == minor if match else None

    # A venv whose base was upgraded beneath it has only the packages of the older Python.
    library = any((prefix / below / f"python{minor}" / "os.py").is_file() for below in ("lib", "lib64"))
    if minor is None or not (library or any(is_of(site) for site in sites)):
        return sites
    return tuple(site for site in sites if is_of(site) is not False)


def _by_version(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", name))


def _python_version(prefix: Path, config: dict[str, str] | None, sites: tuple[Path, ...]) -> str | None:
    if config is not None:
        for key in ("version_info", "version"):  # uv writes the first, venv the second, virtualenv both
            if match := re.match(r"\d+\.\d+(?:\.\d+)?", config.get(key, "")):
                return match[0]
    for name in durable.names_in(prefix / "conda-meta"):
        if match := re.fullmatch(r"python-(\d+\.\d+\.\d+)-[^-]+\.json", name):
            return match[1]
    for site in sites:
        if match := _PYTHON_DIRECTORY.fullmatch(site.parent.name):
            return match[1]
    for name in durable.names_in(prefix):
        if match := _WINDOWS_LIBRARY.fullmatch(name):
            return f"3.{match[1]}"
    return None


def _pth_directories(site: Path) -> Iterator[Path]:
    """Directories that `.pth` files add to ``sys.path``; lines that run code are not run."""
    for name in durable.names_in(site):
        if not name.endswith((".pth", ".egg-link")):
            continue
        for line in _lines(site / name):
            if not line or line.startswith(("#", "import ", "import\t")) or "\0" in line:
                continue
            directory = site / line
            try:
                if directory.is_dir() and not directory.samefile(site):
                    yield directory
            except OSError:  # a name that is too long, or that vanished
                continue


def _lines(file: Path) -> list[str]:
    """The stripped lines of a small text file; none where it cannot be read."""
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST_PATH_FILE:
            return []
        return [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return []


def _distributions(site: Path) -> Iterator[Distribution]:
    for name in durable.names_in(site):
        if name.startswith("~"):
            continue  # what pip leaves of a failed uninstall
        if name.endswith(".dist-info"):
            yield _from_dist_info(site, name)
        elif name.endswith(".egg-info"):
            yield _from_egg_info(site, name)


def _from_dist_info(site: Path, directory: str) -> Distribution:
    metadata = site / directory
    inside = set(durable.names_in(metadata))
    stem_name, _, stem_version = directory.removesuffix(".dist-info").partition("-")
    name, version = _name_and_version(metadata / "METADATA") if "METADATA" in inside else (None, None)
    url, editable = (
        _direct_url(metadata / "direct_url.json") if "direct_url.json" in inside else (None, False)
    )
    return Distribution(
        name=normalized(name or stem_name),
        version=version or stem_version,
        installer=_first_line(metadata / "INSTALLER") if "INSTALLER" in inside else None,
        direct_url=url,
        editable=editable,
        has_record="RECORD" in inside,
        location=site,
        metadata=metadata,
    )


def _from_egg_info(site: Path, entry: str) -> Distribution:
    metadata = site / entry
    file = metadata / "PKG-INFO" if metadata.is_dir() else metadata
    name, version = _name_and_version(file)
    stem = entry.removesuffix(".egg-info").split("-")
    return Distribution(
        name=normalized(name or stem[0]),
        version=version or (stem[1] if len(stem) > 1 else ""),
        installer=None,
        direct_url=None,
        editable=False,
        has_record=False,
        location=site,
        metadata=metadata,
    )


def _name_and_version(file: Path) -> tuple[str | None, str | None]:
    try:
        if not file.is_file():
            return None, None
        with file.open("rb") as stream:
            head = stream.read(_HEAD)
            # The headers end at the first empty line; wheels may have CRLF.
            if len(head) == _HEAD and b"\n\n" not in head and b"\r\n\r\n" not in head and not _both(head):
                head += stream.read(_LARGEST_METADATA)
    except OSError:
        return None, None
    text = head.decode("utf-8", errors="replace")
    headers = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
    return _header(headers, "Name"), _header(headers, "Version")


def _both(head: bytes) -> bool:
    return b"\nName:" in head and b"\nVersion:" in head


def _header(headers: str, name: str) -> str | None:
    match = re.search(rf"(?mi)^{name}:[ \t]*(\S+)[ \t]*\r?$", headers)
    return match[1] if match else None


def _direct_url(file: Path) -> tuple[str | None, bool]:
    try:
        if not file.is_file():
            return None, False
        data: Any = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None, False
    if not isinstance(data, dict):
        return None, False
    url, info = data.get("url"), data.get("dir_info")
    return (url if isinstance(url, str) else None), isinstance(info, dict) and info.get("editable") is True


def _first_line(file: Path) -> str | None:
    lines = _lines(file)
    return (lines[0].strip() or None) if lines else None
