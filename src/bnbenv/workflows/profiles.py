"""Profiles of the user's own: `[profiles.NAME]` of `bnbenv.toml`, or of a pyproject's `[tool.bnbenv]`.

The file is looked for where the command is called and in the directories above. What was read goes into the
environment's request, so that a repair needs the file no more.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import PackageSet, Profile
    from bnbenv.workflows.request import Wanted

FILE = "bnbenv.toml"
_TEXTS = ("summary", "extends", "python", "torch", "min_capability", "devices", "wanted_by", "note")
_KEYS = (*_TEXTS, "packages", "excludes")
_EXAMPLE = """such as [%s] extends = "qlora", summary = "…", packages = { einops = ">=0.8" }"""


def read_definitions(cwd: Path) -> tuple[Path | None, dict[str, dict[str, Any]]]:
    """The nearest file that defines profiles, and its tables by name, each checked for its form.

    Raises:
        UsageError: code ``bad-request``; the message names the file and the key.
    """
    for directory in (cwd, *cwd.parents):
        for name, path_to in ((FILE, ("profiles",)), ("pyproject.toml", ("tool", "bnbenv", "profiles"))):
            file = directory / name
            table = _table(file, path_to)
            if table is not None:
                return file, {key: _checked(file, key, value) for key, value in table.items()}
    return None, {}


def definition_of(name: str, cwd: Path) -> dict[str, Any] | None:
    """The user's definition of a profile; ``None`` where there is none.

    Raises:
        UsageError: a file cannot be read, or it defines a profile that bnbenv has.
    """
    from bnbenv.matrix.load import load

    file, tables = read_definitions(cwd)
    if not tables:
        return None
    builtin = {row.name for row in load("profiles").profiles}
    if clash := sorted(builtin & tables.keys()):
        raise UsageError(
            f"`{file}` defines the profile `{clash[0]}`, which bnbenv has; give yours another name",
            hint=f'[profiles.my-{clash[0]}] extends = "{clash[0]}"',
            code="bad-request",
        )
    return None if name not in tables else {**tables[name], "file": str(file)}


def with_definition(matrix: Matrix, wanted: Wanted) -> Matrix:
    """The matrix with the profile that the request brings along, where it brings one.

    Raises:
        UsageError: a range in it cannot be read, or it extends what is not there.
    """
    if wanted.definition is None or any(row.name == wanted.profile for row in matrix.profiles):
        return matrix
    return matrix.with_profile(profile_row(wanted.profile, wanted.definition, matrix))


def modules_of(row: Profile) -> tuple[str, ...]:
    """What an environment is tested by importing, where its profile has no bitsandbytes to compute with."""
    return ("torch", *row.imports)


def profile_row(name: str, definition: Mapping[str, Any], matrix: Matrix) -> Profile:
    """A definition as a row.

    Raises:
        UsageError: see `with_definition`.
    """
    from bnbenv.judge import lookup
    from bnbenv.matrix.rows import Profile, Provenance
    from bnbenv.units import ComputeCapability

    if "extends" in definition and all(row.name != definition["extends"] for row in matrix.profiles):
        raise _extends_nothing(name, definition, matrix)
    base = lookup.profile(matrix, definition["extends"]) if "extends" in definition else None
    floor = definition.get("min_capability")
    excludes = (*(base.excludes if base else ()), *definition.get("excludes", ()))
    return Profile(
        name=name,
        summary=definition.get("summary") or (base.summary if base else name),
        sets=_sets(name, definition, base),
        min_capability=ComputeCapability.parse(floor) if floor else base.min_capability if base else None,
        devices=definition.get("devices") or (base.devices if base else "any"),
        # What the user asks for by name is not kept out for the sake of the profile it is added to.
        excludes=tuple(name for name in excludes if name not in definition.get("packages", {})),
        wanted_by=definition.get("wanted_by", ""),
        note=definition.get("note") or (base.note if base else ""),
        builds=base.builds if base else (),
        imports=base.imports if base else (),
        provenance=Provenance(
            how="published",
            source=str(definition.get("file", "the user's own")),
            checked=matrix.revision.replace(".", "-"),
        ),
    )


def _extends_nothing(name: str, definition: Mapping[str, Any], matrix: Matrix) -> UsageError:
    file = Path(definition.get("file", FILE))
    known = ", ".join(f"`{row.name}`" for row in matrix.profiles)
    return UsageError(
        f"`{file}`: `{_key(file, name)}.extends` is `{definition['extends']}`, no profile of bnbenv's own",
        hint=f"extend one of {known}",
        code="bad-request",
    )


def _sets(name: str, definition: Mapping[str, Any], base: Profile | None) -> tuple[PackageSet, ...]:
    from bnbenv.matrix.rows import PackageSet

    own = dict(definition.get("packages", {}))
    if base is None:
        return (
            PackageSet(
                name=name,
                python=definition.get("python", ">=3.10"),
                torch=definition.get("torch", ">=2.3"),
                packages=own,
            ),
        )
    return tuple(
        PackageSet(
            name=f"{name} {group.name}",
            python=_both(group.python, definition.get("python", "")),
            torch=_both(group.torch, definition.get("torch", "")),
            packages={**group.packages, **{it: _both(group.packages.get(it, ""), own[it]) for it in own}},
            cuda=group.cuda,
            platforms=group.platforms,
        )
        for group in base.sets
    )


def _both(one: str, other: str) -> str:
    return ",".join(part for part in (one, other) if part)


def _table(file: Path, path: tuple[str, ...]) -> dict[str, Any] | None:
    from bnbenv.toml import TOMLDecodeError, loads

    ours = file.name == FILE
    text = b""
    try:
        text = file.read_bytes()
        found: Any = loads(text.decode())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError, TOMLDecodeError) as error:
        if not ours and b"tool.bnbenv" not in text:
            return None  # a pyproject that does not speak to bnbenv is not for this command to judge
        raise _bad(file, f"it cannot be read: {error}") from error
    for depth, key in enumerate(path, start=1):
        if key not in found:
            return None
        found = found[key]
        if not isinstance(found, dict):
            if key == "tool":
                return None
            raise _bad(file, f"`{'.'.join(path[:depth])}` is no table")
    return found  # type: ignore[no-any-return]


def _checked(file: Path, name: str, value: Any) -> dict[str, Any]:
    """A definition whose every key is known and of its kind, and whose every range can be read."""
    from difflib import get_close_matches

    from bnbenv.env.layout import checked_name

    where = _key(file, name)
    try:
        checked_name(name)
    except UsageError as error:
        why = error.message.replace("environment name", "profile name", 1)
        raise _bad(file, f"`{where}`: {why}") from error
    if not isinstance(value, dict):
        raise _bad(file, f"`{where}` is no table")
    for key in value:
        if key not in _KEYS:
            near = get_close_matches(key, _KEYS, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            raise _bad(file, f"`{where}.{key}` is no setting{hint}")
    for why in _faults(where, value):
        raise _bad(file, why)
    return _with_normalized_names(value)


def _with_normalized_names(value: dict[str, Any]) -> dict[str, Any]:
    """The definition with its packages named as the matrix names them: `GPTQModel` is `gptqmodel`."""
    from bnbenv.names import normalized

    names = {
        "packages": {normalized(it): spec for it, spec in value.get("packages", {}).items()},
        "excludes": [normalized(it) for it in value.get("excludes", [])],
    }
    return {**value, **{key: named for key, named in names.items() if key in value}}


def _faults(where: str, value: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the values, one sentence each."""
    packages, excludes = value.get("packages", {}), value.get("excludes", [])
    yield from (f"`{where}.{key}` is no text" for key in _TEXTS if not isinstance(value.get(key, ""), str))
    if not (isinstance(packages, dict) and all(isinstance(it, str) for it in packages.values())):
        yield f'`{where}.packages` is no table of ranges, such as {{ einops = ">=0.8" }}'
    if not (isinstance(excludes, list) and all(isinstance(it, str) for it in excludes)):
        yield f"`{where}.excludes` is no list of names"
    for name in (*packages, *excludes):
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
            yield f"`{name}` in `{where}` is no name of a package"
    for name in ("python", "torch"):
        if name in packages:  # a range there would bind nothing
            yield f"the range of `{name}` stands beside `packages`, as `{where}.{name}`"
    if "extends" not in value and not packages:
        yield f"`{where}` neither extends a profile nor names packages"
    if value.get("devices", "any") not in ("any", "gpu"):
        yield f"`{where}.devices` is neither `any` nor `gpu`"
    ranges = {"python": value.get("python", ""), "torch": value.get("torch", ""), **packages}
    yield from (
        f"`{text}`, the range of `{key}` in `{where}`, cannot be read"
        for key, text in ranges.items()
        if not _is_range(text)
    )
    if "min_capability" in value and not _is_capability(value["min_capability"]):
        yield f"`{where}.min_capability` is no compute capability, such as 8.0"


def _is_range(text: str) -> bool:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        return False
    return True


def _is_capability(text: str) -> bool:
    from bnbenv.units import ComputeCapability

    try:
        ComputeCapability.parse(text)
    except ValueError:
        return False
    return True


def _key(file: Path, name: str) -> str:
    """Where a profile stands in a file."""
    return f"profiles.{name}" if file.name == FILE else f"tool.bnbenv.profiles.{name}"


def _bad(file: Path, why: str) -> UsageError:
    return UsageError(f"`{file}`: {why}", hint=_EXAMPLE % _key(file, "mine"), code="bad-request")
