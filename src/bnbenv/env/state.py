"""What an environment was asked to be and how it was decided, as the file that stands in each generation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import asdict, dataclass, field, fields
from bnbenv.env import durable
from bnbenv.errors import UPGRADE, EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

SCHEMA = 1

# From each past schema to the next one. A fixture of every past schema stands in tests/env/states/.
MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What a base interpreter provides (`--base`).

    Attributes:
        python: the base's interpreter.
        packages: name → version, of what was taken out of the lock.
        record: sha256 of the RECORD of its torch, so that a later change of the base can be told.
        torch: the full version of its torch.
        directory: the package `torch` that is imported.
        metadata: the ``.dist-info`` of its torch.
    """

    python: str
    packages: Mapping[str, str] = field(default_factory=dict)
    record: str | None = None
    torch: str | None = None
    directory: str | None = None
    metadata: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The facts of one generation; JSON values only.

    Attributes:
        name: the environment, as the user calls it.
        profile: the purpose.
        request: what was asked for, by the names of the options.
        target: the machine, in the shape of a target file.
        matrix: the revision of the matrix.
        lock: the lock's digest, full length.
        created: when, ISO 8601 in UTC.
        python: the minor version of the interpreter, such as ``3.12``.
        torch: the build, as `resolve` shows it.
        bitsandbytes: the wheel, as `resolve` shows it.
        base: what a base interpreter provides.
        findings: what the judge said when it was made.
        bnbenv: the version that made it.
        verdict: ``passed``, ``degraded``, ``failed`` or ``not-run``.
        driver: the driver when it was made.
        evidence: the judge's ``verified``, ``neighbour`` or ``none``.
    """

    name: str
    profile: str
    request: Mapping[str, Any]
    target: Mapping[str, Any]
    matrix: str
    lock: str
    created: str
    python: str
    bnbenv: str
    torch: Mapping[str, Any] | None = None
    bitsandbytes: Mapping[str, Any] | None = None
    base: Base | None = None
    findings: tuple[Mapping[str, Any], ...] = ()
    verdict: str = "not-run"
    driver: str | None = None
    evidence: str = "none"


_TEXTS = ("name", "profile", "matrix", "lock", "created", "python", "bnbenv")
_OPTIONAL_TEXTS = ("verdict", "driver", "evidence")
_TABLES = ("request", "target")
_OPTIONAL_TABLES = ("torch", "bitsandbytes")
_VERDICTS = {"passed", "degraded", "failed", "not-run"}


def write(path: Path, state: State, *, flush: bool = True) -> None:
    """Write `state` whole, or leave what was there.

    Args:
        path: of the file.
        state: the facts.
        flush: as in `durable.write_whole`.

    Raises:
        ExternalError: codes ``permission``, ``disk-full``.
    """
    document = {"schema": SCHEMA, **asdict(state)}
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    durable.write_whole(path, text.encode(), flush=flush)


def read(path: Path) -> State:
    """Read a state of this schema or of an older one; nothing is written.

    Raises:
        EnvironmentProblem: codes ``no-environment``, ``state-broken``, ``state-too-new``.
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise EnvironmentProblem(
            f"there is no environment at `{path.parent.parent}`: `{path}` is missing"
        ) from None
    except OSError as error:
        raise _broken(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"it is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise _broken(path, "it is not an object")
    return _from_document(migrated(document, path), path)


def read_whole(path: Path) -> State | None:
    """The same, or ``None`` where there is none, or none that can be read: it counts for nothing.

    Raises:
        EnvironmentProblem: code ``state-too-new``; a newer bnbenv knows what it says.
    """
    try:
        return read(path)
    except EnvironmentProblem as problem:
        if problem.code == "state-too-new":
            raise
        return None


def migrated(
    document: dict[str, Any],
    path: Path,
    *,
    schema: int = SCHEMA,
    migrations: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] | None = None,
) -> dict[str, Any]:
    """`document` in the given schema, brought up step by step.

    Raises:
        EnvironmentProblem: codes ``state-broken``, ``state-too-new``.
    """
    steps = MIGRATIONS if migrations is None else migrations
    found = document.get("schema")
    if type(found) is not int or found < 1:
        raise _broken(path, f"its schema is {found!r}")
    if found > schema:
        raise EnvironmentProblem(
            f"`{path}` was written by a newer bnbenv ({document.get('bnbenv', 'version unknown')}; "
            f"schema {found}, this one reads up to {schema})",
            hint=UPGRADE,
            code="state-too-new",
        )
    for step in range(found, schema):
        try:
            document = {**steps[step](document), "schema": step + 1}
        except (KeyError, TypeError, AttributeError, ValueError) as error:  # noqa: PERF203
            raise _broken(path, f"schema {step} cannot be brought to {step + 1} ({error!r})") from error
    return document


def _from_document(document: dict[str, Any], path: Path) -> State:
    known = {entry.name for entry in fields(State)}
    values = {key: value for key, value in document.items() if key in known and value is not None}
    for keys, kind, word in (
        (_TEXTS + _OPTIONAL_TEXTS, str, "text"),
        (_TABLES + _OPTIONAL_TABLES, dict, "an object"),
    ):
        for key in keys:
            if key in values and not isinstance(values[key], kind):
                raise _broken(path, f"`{key}` is not {word}")
    for key in _TEXTS + _TABLES:
        if key not in values:
            raise _broken(path, f"`{key}` is missing")
    findings = values.get("findings", [])
    if not (isinstance(findings, list) and all(isinstance(finding, dict) for finding in findings)):
        raise _broken(path, "`findings` is not a list of objects")
    values["findings"] = tuple(findings)
    if values.get("verdict", "not-run") not in _VERDICTS:
        raise _broken(path, f"`verdict` is {values['verdict']!r}")
    if "base" in values:
        values["base"] = _base(values["base"], path)
    return State(**values)


def _base(value: Any, path: Path) -> Base:
    if not isinstance(value, dict) or not isinstance(value.get("python"), str):
        raise _broken(path, "`base` is not an object with `python`")
    packages = value.get("packages", {})
    if not (isinstance(packages, dict) and all(isinstance(version, str) for version in packages.values())):
        raise _broken(path, "`base.packages` is not an object of texts")
    texts = {key: value.get(key) for key in ("record", "torch", "directory", "metadata")}
    for key, text in texts.items():
        if text is not None and not isinstance(text, str):
            raise _broken(path, f"`base.{key}` is not text")
    return Base(python=value["python"], packages=packages, **texts)


def _broken(path: Path, why: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"the environment's state `{path}` cannot be used: {why}",
        hint="the environment itself may still work; `bnbenv rollback` returns to the one before, "
        "`bnbenv create` under the same name builds it anew",
        code="state-broken",
    )
