"""`bnbenv.lock`: which of the standard locks beside it serves which machines, and what each must hash to."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from bnbenv.dataclass import dataclass, field
from bnbenv.env import durable
from bnbenv.errors import UPGRADE, DataError, EnvironmentProblem, UsageError
from bnbenv.lockfile import conflict, text
from bnbenv.lockfile.commands import lock_command
from bnbenv.machine.target import Arch, OsName
from bnbenv.sha256 import hexdigest
from bnbenv.typed_paths import to_type

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAME = "bnbenv.lock"
FORMAT = 1
_VARIANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_LOCK_NAME = re.compile(r"(?:pylock\.[^.]+\.toml|bnbenv\.lock)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GLIBC = re.compile(r"2\.[0-9]{1,3}")
_MINOR = re.compile(r"3\.[0-9]{1,3}")
_HEAD = """\
# Which of the locks beside this file serves which machine. Made by `bnbenv lock`; commit them together.
# Each pylock.<variant>.toml is a standard lock (PEP 751), which `uv pip sync` and `pip install -r` read too.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One standard lock and the stack that it was made of.

    Attributes:
        name: as in ``pylock.<name>.toml``.
        sha256: of that file.
        python: the minor version.
        glibc: the oldest one that its wheels run on; ``None`` off Linux.
        torch: ``version``, ``build``, ``index`` and, where the index uses one, ``local``.
        bitsandbytes: ``version``, ``wheel`` and ``sha256``; ``None`` for a profile without it.
        packages: the profile's ranges.
        evidence: the judge's word on whether such a stack was seen to work.
        origin: the index that names it.
    """

    name: str
    sha256: str
    python: str
    os: str
    arch: str
    glibc: str | None
    torch: Mapping[str, str]
    bitsandbytes: Mapping[str, str] | None
    packages: Mapping[str, str]
    evidence: str
    origin: str = field(default=NAME, compare=False)

    @property
    def file(self) -> str:
        """The name of its lock."""
        return f"pylock.{self.name}.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineClass:
    """Machines that no rule can tell apart.

    Attributes:
        variant: the name of what serves them; ``None`` where nothing does.
        machines: their names, sorted.
        facts: one of them, in the shape of a target file.
        seen: the day when these facts were first given, ISO 8601.
        blocking: why nothing serves them.
    """

    variant: str | None
    machines: tuple[str, ...]
    facts: Mapping[str, Any]
    seen: str
    blocking: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamLock:
    """The whole index.

    Attributes:
        request: what was asked for, by the names of the options.
        matrix: the revision of the matrix that judged.
    """

    request: Mapping[str, Any]
    matrix: str
    variants: tuple[Variant, ...] = ()
    classes: tuple[MachineClass, ...] = ()
    origin: str = field(default=NAME, compare=False)

    def variant(self, name: str) -> Variant:
        """The variant of that name, which the user gave, or a class whose variant was seen to be there.

        Raises:
            UsageError: there is none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        known = ", ".join(f"`{variant.name}`" for variant in self.variants) or "none"
        raise UsageError(
            f"the lock has no variant `{name}`; it has {known}",
            hint=f"--variant {self.variants[0].name}"
            if self.variants
            else lock_command(Path(self.origin).parent),
        )

    def asked_otherwise(self, provenance: Mapping[str, Any]) -> Mapping[str, Any]:
        """Key of the request → what a lock, by its provenance, was made for otherwise; ``None``: nothing."""
        made_for = provenance.get("request")
        if not isinstance(made_for, dict) or not made_for:
            return {}
        old, new = _plain(made_for), _plain(self.request)
        return {key: old.get(key) for key in sorted({*old, *new}) if old.get(key) != new.get(key)}

    def serving(self, name: str) -> tuple[MachineClass, ...]:
        """The classes that a variant serves."""
        return tuple(entry for entry in self.classes if entry.variant == name)


def read(directory: Path) -> TeamLock:
    """Read ``bnbenv.lock`` of a directory.

    Raises:
        UsageError: the directory is a file.
        EnvironmentProblem: code ``no-environment``; there is none.
        DataError: code ``lock-invalid``.
    """
    path = directory / NAME
    if directory.is_file():
        raise UsageError(
            f"`{directory}` is a file, and the directory of a lock is wanted",
            hint=f"name the directory: {to_type(directory.parent)}",
        )
    if not path.is_file():
        raise _missing(directory)
    try:
        return parse(text.decode(text.read_bytes(path), str(path)), origin=str(path))
    except DataError as problem:
        if problem.hint == text.MAKE_AGAIN:
            problem.hint = (
                "take it from version control again; or make it from nothing: "
                f"{lock_command(directory, 'PROFILE --repack')}, with --target FILE for each machine"
            )
        raise


def _missing(directory: Path) -> EnvironmentProblem:
    """The error for a directory without an index: it may be lost, or stand above or below."""
    message = f"there is no `{NAME}` in `{directory}`"
    if locks := made_here(directory):
        place = "" if (typed := to_type(directory)) == "." else f"-C {typed} "
        return EnvironmentProblem(
            f"{message}, which has {', '.join(f'`{name}`' for name in locks)}",
            hint=f"take it from version control again; if it never was there, perhaps it is ignored: "
            f"git {place}check-ignore -v {NAME}; or make all anew: "
            + lock_command(directory, "PROFILE --repack"),
        )
    from bnbenv.lockfile.above import only_ours

    near = (*directory.parents, *sorted(path.parent for path in directory.glob(f"*/{NAME}")))
    found = next((place for place in near if (place / NAME).is_file()), None)
    if found is None:
        return EnvironmentProblem(message, hint=lock_command(directory))
    warning = "" if found.is_relative_to(directory) or only_ours(found) else " (where others can write)"
    place = to_type(found)
    there = (
        "leave the directory out, for the one that is here"
        if place == "."
        else f"name the directory of the one that is there: {place}{warning}"
    )
    return EnvironmentProblem(message, hint=f"{there}; or, for another one, {lock_command(directory)}")


def made_here(directory: Path) -> tuple[str, ...]:
    """The names of the standard locks of a directory that are bnbenv's own, by their provenance."""
    return tuple(
        path.name
        for path in sorted(directory.glob("pylock.*.toml"))
        if path.is_file() and b"\n[tool.bnbenv]" in text.read_bytes(path)
    )


def parse(content: str, *, origin: str = NAME) -> TeamLock:
    """Check the text of an index.

    Raises:
        DataError: code ``lock-invalid``.
    """
    if conflict.marked(content):
        raise conflict.refusal(content, origin)
    document = text.parse(content, origin)
    found = document.get("version")
    if found != FORMAT or isinstance(found, bool):
        if isinstance(found, int) and found > FORMAT:
            raise text.invalid(
                origin,
                f"it is of format version {found}, and this bnbenv reads up to {FORMAT}",
                hint=UPGRADE,
            )
        raise text.invalid(origin, f"its format version is {found!r}")
    reader = _Reader(origin)
    variants = tuple(
        _variant(reader, entry, f"variants[{number}]")
        for number, entry in enumerate(reader.tables(document, "variants", ""))
    )
    names = [variant.name for variant in variants]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise text.invalid(origin, f"the variant `{twice}` stands there twice")
    classes = tuple(
        _class(reader, entry, f"classes[{number}]", names)
        for number, entry in enumerate(reader.tables(document, "classes", ""))
    )
    request = reader.table(document, "request", "")
    for line in reader.texts(request, "packages", "request"):
        if line.lstrip().startswith("-"):  # uv would follow it
            raise text.invalid(origin, f"`request.packages` holds {line!r}, which is an option")
    return TeamLock(
        request=request,
        matrix=reader.text(document, "matrix", ""),
        variants=variants,
        classes=classes,
        origin=origin,
    )


def dump(lock: TeamLock) -> str:
    """The index as text; equal indexes give equal text."""
    import tomli_w

    document: dict[str, Any] = {
        "version": FORMAT,
        "matrix": lock.matrix,
        "request": {key: _plain(lock.request[key]) for key in sorted(lock.request)},
        "variants": [_variant_document(variant) for variant in sorted(lock.variants, key=_name_of)],
        "classes": [_class_document(entry) for entry in sorted(lock.classes, key=_class_key)],
    }
    return _HEAD + tomli_w.dumps({key: value for key, value in document.items() if value != []})


def write(directory: Path, lock: TeamLock) -> None:
    """Write the index whole, or leave what was there.

    Raises:
        UsageError, ExternalError: see `destination`; codes ``permission``, ``disk-full``.
    """
    durable.write_whole(destination(directory, NAME), dump(lock).encode())


def destination(directory: Path, name: str) -> Path:
    """Where a file of a lock is written: where a link in its place leads, as to configuration that is shared.

    Raises:
        UsageError: it leads to what is not called as a lock is, and which somebody may want overwritten.
        ExternalError: it leads in a circle, or to a directory that is not there.
    """
    path = directory / name
    if not path.is_symlink():
        return path
    real = Path(os.path.realpath(path))
    broken = errno.ELOOP if real.is_symlink() else errno.ENOENT if not real.parent.is_dir() else None
    if broken is not None:
        raise durable.explained(OSError(broken, os.strerror(broken)), real, "write")
    if not (_LOCK_NAME.fullmatch(real.name) and _LOCK_NAME.fullmatch(name)) or real.is_dir():
        raise UsageError(
            f"`{path}` is a link to `{real}`, which is not called as a lock is: nothing was written",
            hint=f"rm {to_type(path)}, for a file in its place; or call what it leads to `{name}`",
        )
    return real


def locked_bytes(directory: Path, variant: Variant, *, origin: str = NAME) -> bytes:
    """The standard lock of a variant, if it is the one that the index names.

    Raises:
        DataError: codes ``lock-invalid`` (it is missing), ``hash-mismatch`` (it was changed).
    """
    path = directory / variant.file
    if not path.is_file():
        raise DataError(
            f"`{origin}` names `{variant.file}`, which is not there",
            hint=f"take it from version control again, or {lock_command(directory)}, which makes it anew, "
            "with other versions where newer ones are out",
            code="lock-invalid",
        )
    data = text.read_bytes(path)
    if hexdigest(data.replace(b"\r\n", b"\n")) != variant.sha256:
        raise DataError(
            f"`{path}` is not the file that `{origin}` names: it was changed after it was locked",
            hint=f"take both from version control again, or {lock_command(directory)}, which makes it anew, "
            "with the versions that it holds, where they fit",
            code="hash-mismatch",
        )
    return data


def locked_text(directory: Path, variant: Variant, *, name: str, origin: str = NAME) -> str:
    """The same as text with newlines alone, as its hash counts them; `name` is what messages call the file.

    Raises:
        DataError: see `locked_bytes`; or it is no lock: whoever wrote it may have written its hash too.
    """
    from bnbenv.lockfile import pylock

    content = text.decode(locked_bytes(directory, variant, origin=origin), name)
    pylock.parse(content, origin=name)
    return content.replace("\r\n", "\n")


def sha256_of(content: str) -> str:
    """What the index records of a lock; line ends count as one newline, as a checkout may change them."""
    return hexdigest(content.encode().replace(b"\r\n", b"\n"))


class _Reader:
    """Takes typed values out of TOML, and names the key of what is wrong."""

    def __init__(self, origin: str) -> None:
        self.origin = origin

    def text(self, table: Mapping[str, Any], key: str, where: str) -> str:
        value = table.get(key)
        if not isinstance(value, str) or not value:
            raise text.invalid(self.origin, f"`{_joined(where, key)}` is not text")
        return value

    def one_of(self, table: Mapping[str, Any], key: str, where: str, known: Sequence[str]) -> str:
        value = self.text(table, key, where)
        if value not in known:
            raise text.invalid(
                self.origin, f"`{_joined(where, key)}` is {value!r}, which is not one of {', '.join(known)}"
            )
        return value

    def table(self, table: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
        value = table.get(key)
        if not isinstance(value, dict):
            raise text.invalid(self.origin, f"`{_joined(where, key)}` is not a table")
        return value

    def tables(self, table: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise text.invalid(self.origin, f"`{_joined(where, key)}` is not a list of tables")
        return value

    def texts(self, table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise text.invalid(self.origin, f"`{_joined(where, key)}` is not a list of texts")
        return tuple(value)

    def pairs(self, table: Mapping[str, Any], key: str, where: str) -> dict[str, str]:
        value = self.table(table, key, where)
        if not all(isinstance(entry, str) for entry in value.values()):
            raise text.invalid(self.origin, f"`{_joined(where, key)}` holds something that is not text")
        return value

    def ranges(self, table: Mapping[str, Any], key: str, where: str) -> dict[str, str]:
        from packaging.specifiers import InvalidSpecifier, SpecifierSet

        value = self.pairs(table, key, where)
        try:
            for spec in value.values():
                SpecifierSet(spec)
        except InvalidSpecifier as error:
            why = f"`{_joined(where, key)}` holds no range of versions: {error}"
            raise text.invalid(self.origin, why) from error
        return value


def _variant(reader: _Reader, entry: dict[str, Any], where: str) -> Variant:
    name, sha256 = reader.text(entry, "name", where), reader.text(entry, "sha256", where)
    if not _VARIANT.fullmatch(name):
        raise text.invalid(reader.origin, f"`{where}.name` is {name!r}, which cannot be part of a file name")
    if not _SHA256.fullmatch(sha256):
        raise text.invalid(reader.origin, f"`{where}.sha256` is not a SHA-256")
    python = reader.text(entry, "python", where)
    if not _MINOR.fullmatch(python):
        raise text.invalid(reader.origin, f"`{where}.python` is {python!r}, not a minor version such as 3.12")
    glibc = reader.text(entry, "glibc", where) if "glibc" in entry else None
    if glibc is not None and not _GLIBC.fullmatch(glibc):
        raise text.invalid(reader.origin, f"`{where}.glibc` is {glibc!r}, not a version of glibc")
    torch = reader.pairs(entry, "torch", where)
    for key in ("version", "build", "index"):
        reader.text(torch, key, f"{where}.torch")
    wheel = reader.pairs(entry, "bitsandbytes", where) if "bitsandbytes" in entry else None
    for key in ("version", "wheel", "sha256") if wheel is not None else ():
        reader.text(wheel or {}, key, f"{where}.bitsandbytes")
    return Variant(
        name=name,
        sha256=sha256,
        python=python,
        os=reader.one_of(entry, "os", where, get_args(OsName)),
        arch=reader.one_of(entry, "arch", where, get_args(Arch)),
        glibc=glibc,
        torch=torch,
        bitsandbytes=wheel,
        packages=reader.ranges(entry, "packages", where) if "packages" in entry else {},
        evidence=reader.text(entry, "evidence", where) if "evidence" in entry else "none",
        origin=reader.origin,
    )


def _class(reader: _Reader, entry: dict[str, Any], where: str, names: Sequence[str]) -> MachineClass:
    variant = reader.text(entry, "variant", where) if "variant" in entry else None
    if variant is not None and variant not in names:
        raise text.invalid(reader.origin, f"`{where}.variant` is `{variant}`, which no variant is called")
    return MachineClass(
        variant=variant,
        machines=reader.texts(entry, "machines", where),
        facts=reader.table(entry, "facts", where),
        seen=reader.text(entry, "seen", where),
        blocking=reader.texts(entry, "blocking", where),
    )


def _variant_document(variant: Variant) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": variant.name,
        "sha256": variant.sha256,
        "python": variant.python,
        "os": variant.os,
        "arch": variant.arch,
        "glibc": variant.glibc,
        "evidence": variant.evidence,
        "torch": dict(variant.torch),
        "bitsandbytes": None if variant.bitsandbytes is None else dict(variant.bitsandbytes),
        "packages": {name: variant.packages[name] for name in sorted(variant.packages)},
    }
    return {key: value for key, value in document.items() if value not in (None, {})}


def _class_document(entry: MachineClass) -> dict[str, Any]:
    document: dict[str, Any] = {
        "variant": entry.variant,
        "machines": sorted(entry.machines),
        "seen": entry.seen,
        "blocking": list(entry.blocking),
        "facts": _plain(entry.facts),
    }
    return {key: value for key, value in document.items() if value not in (None, [])}


def _class_key(entry: MachineClass) -> tuple[str, tuple[str, ...], str]:
    import json

    return entry.variant or "", tuple(sorted(entry.machines)), json.dumps(_plain(entry.facts), sort_keys=True)


def _name_of(variant: Variant) -> str:
    return variant.name


def _plain(value: Any) -> Any:
    """TOML's own types; what is unknown is left out."""
    if hasattr(value, "items"):
        return {str(key): _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


def _joined(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
