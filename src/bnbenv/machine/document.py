"""A target as the JSON object that `detect --json` prints and `--target FILE` reads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from bnbenv.errors import UsageError
from bnbenv.machine.target import Accelerator, Arch, Gpu, Libc, OsName, Target
from bnbenv.units import ComputeCapability, DottedVersion, DriverVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SCHEMA = 1
_T = TypeVar("_T")
_D = TypeVar("_D")


def target_to_dict(target: Target) -> dict[str, Any]:
    """The JSON object of a target; what is unknown is left out, except `driver` and `libc`."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "name": target.name,
        "os": target.os,
        "arch": target.arch,
        "libc": None
        if target.libc is None
        else {"family": target.libc.family, "version": str(target.libc.version)},
        "wsl": target.wsl,
        "tegra": target.tegra,
        "accelerator": target.accelerator,
        "driver": None if target.driver is None else str(target.driver),
        "gpus": [_gpu_to_dict(gpu) for gpu in target.gpus],
        "pythons": list(target.pythons),
    }
    if target.cpu_flags is not None:
        document["cpu"] = {"flags": sorted(target.cpu_flags)}
    if target.libstdcxx is not None:
        document["libstdcxx"] = str(target.libstdcxx)
    more = {"rocm": target.rocm, "l4t": target.l4t}
    return document | {key: value for key, value in more.items() if value is not None}


def _gpu_to_dict(gpu: Gpu) -> dict[str, Any]:
    values = {
        "name": gpu.name,
        "compute_capability": None if gpu.compute_capability is None else str(gpu.compute_capability),
        "gfx": gpu.gfx,
        "memory_mib": gpu.memory_mib,
        "index": gpu.index,
        "uuid": gpu.uuid,
        "pci_id": gpu.pci_id,
        "visible": gpu.visible,
        "mig": gpu.mig,
        "integrated": gpu.integrated,
    }
    return {key: value for key, value in values.items() if value is not None}


def target_from_dict(data: Any, *, where: str = "target") -> Target:
    """Read a target, or the whole output of `detect --json` that holds one.

    Unknown keys are ignored; an absent key, or ``null``, means unknown. `os` and `arch` must be there, and
    `accelerator` unless the GPUs tell it.

    Args:
        data: the parsed JSON value.
        where: what the messages call it, such as a file's name.

    Raises:
        UsageError: code ``bad-target``; the message names the key.
    """
    document = _object(data, where)
    envelope = document.get("data")
    if "schema" in document and isinstance(envelope, dict) and "target" in envelope:
        where = f"{where}.data.target"
        document = _object(envelope["target"], where)
    schema = _optional(document, "schema", where, _whole, SCHEMA)
    if schema > SCHEMA:
        raise UsageError(
            f"`{where}.schema` is {schema}; this bnbenv reads targets up to schema {SCHEMA}",
            code="bad-target",
            hint="upgrade bnbenv, or write the target again with this version's `bnbenv detect --json`",
        )
    gpus = tuple(
        _gpu(item, f"{where}.gpus[{number}]")
        for number, item in enumerate(_optional(document, "gpus", where, _list, []))
    )
    known = _optional(document, "accelerator", where, _accelerator, None) or _accelerator_of(gpus)
    accelerator: Accelerator = (
        _required(document, "accelerator", where, _accelerator) if known is None else known
    )
    _refuse_contradiction(accelerator, gpus, where)
    processor = _optional(document, "cpu", where, _mapping, {})
    flags = _optional(processor, "flags", f"{where}.cpu", _texts, None)
    return Target(
        name=_optional(document, "name", where, _text, "unnamed"),
        os=_required(document, "os", where, _one_of(get_args(OsName))),
        arch=_required(document, "arch", where, _one_of(get_args(Arch))),
        accelerator=accelerator,
        libc=_libc(_optional(document, "libc", where, _mapping, None), f"{where}.libc"),
        wsl=_optional(document, "wsl", where, _flag, default=False),
        tegra=_optional(
            document,
            "tegra",
            where,
            _flag,
            default=any(gpu.compute_capability is not None and gpu.compute_capability.tegra for gpu in gpus),
        ),
        driver=_optional(document, "driver", where, _driver, None),
        gpus=gpus,
        pythons=_pythons(document, where),
        rocm=_optional(document, "rocm", where, _text, None),
        l4t=_optional(document, "l4t", where, _text, None),
        cpu_flags=None if flags is None else frozenset(flags),
        libstdcxx=_optional(document, "libstdcxx", where, _version, None),
    )


def _gpu(value: Any, where: str) -> Gpu:
    item = _object(value, where)
    capability = _optional(item, "compute_capability", where, _capability, None)
    gfx = _optional(item, "gfx", where, _gfx, None)
    name = _optional(item, "name", where, _text, None)
    if name is None and capability is not None:
        name = f"GPU of compute capability {capability}"
    if name is None and gfx is not None:
        name = f"AMD GPU {gfx}"
    return Gpu(
        name=name or _required(item, "name", where, _text),
        compute_capability=capability,
        gfx=gfx,
        memory_mib=_optional(item, "memory_mib", where, _whole, None),
        index=_optional(item, "index", where, _whole, None),
        uuid=_optional(item, "uuid", where, _text, None),
        pci_id=_optional(item, "pci_id", where, _pci_id, None),
        visible=_optional(item, "visible", where, _flag, None),
        mig=_optional(item, "mig", where, _flag, None),
        integrated=_optional(item, "integrated", where, _flag, None),
    )


def _accelerator_of(gpus: tuple[Gpu, ...]) -> Accelerator | None:
    if gpus and all(gpu.compute_capability for gpu in gpus):
        return "cuda"
    if gpus and all(gpu.gfx for gpu in gpus):
        return "rocm"
    return None


def _refuse_contradiction(accelerator: Accelerator, gpus: tuple[Gpu, ...], where: str) -> None:
    """Refuse an accelerator that no GPU of the machine can be.

    ``cpu`` says that the GPUs are not used. Beside one that can be it, GPUs of another kind may stand.
    """
    kinds = [_accelerators_of(gpu) for gpu in gpus]
    if accelerator == "cpu" or not gpus or any(not kind or accelerator in kind for kind in kinds):
        return
    told = ", ".join(f"`{kind}`" for kind in sorted(set().union(*kinds)))
    raise UsageError(
        f"`{where}.accelerator` is `{accelerator}`, and the GPUs of `{where}.gpus` are for {told}: "
        + ", ".join(gpu.name for gpu in gpus),
        code="bad-target",
        hint=f"{told}, or `cpu` to leave the GPUs unused",
    )


def _accelerators_of(gpu: Gpu) -> set[Accelerator]:
    """What the GPU can be used as, as far as its generation tells; empty where nothing is known."""
    told: dict[Accelerator, object] = {"cuda": gpu.compute_capability, "rocm": gpu.gfx}
    return {kind for kind, generation in told.items() if generation is not None}


def _libc(value: Mapping[str, Any] | None, where: str) -> Libc | None:
    if value is None:
        return None
    return Libc(
        family=_required(value, "family", where, _one_of(("glibc", "musl"))),
        version=_required(value, "version", where, _version),
    )


def _pythons(document: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The minor versions, oldest first; ``3.12.4`` counts as ``3.12``."""
    minors = set()
    for number, text in enumerate(_optional(document, "pythons", where, _texts, [])):
        match = re.fullmatch(r"(\d{1,2})\.(\d{1,2})(?:\.\d{1,3})?", text)
        if match is None:
            raise _bad(f"{where}.pythons[{number}]", "a Python version such as `3.12`", text)
        minors.add((int(match[1]), int(match[2])))
    return tuple(f"{major}.{minor}" for major, minor in sorted(minors))


# The readers of one value. Each raises ValueError with the words for what it wanted.


def _optional(
    data: Mapping[str, Any], key: str, where: str, read: Callable[[Any], _T], default: _D
) -> _T | _D:
    value = data.get(key)
    if value is None:
        return default
    try:
        return read(value)
    except ValueError as error:
        raise _bad(f"{where}.{key}", str(error), value) from None


def _required(data: Mapping[str, Any], key: str, where: str, read: Callable[[Any], _T]) -> _T:
    value = _optional(data, key, where, read, None)
    if value is None:
        raise UsageError(
            f"`{where}.{key}` is missing",
            code="bad-target",
            hint="`bnbenv detect --json` writes a complete target",
        )
    return value


def _bad(where: str, wanted: str, value: Any) -> UsageError:
    return UsageError(f"`{where}` is not {wanted}: {value!r}", code="bad-target")


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad(where, "an object", value)
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object")  # noqa: TRY004 - the reader's protocol
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("a list")  # noqa: TRY004 - the reader's protocol
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a text")
    if not value.isprintable():  # it will be shown, and a terminal obeys some characters
        raise ValueError("a text without control characters")
    return value


def _texts(value: Any) -> list[str]:
    return [_text(item) for item in _list(value)]


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a whole number")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")  # noqa: TRY004 - the reader's protocol
    return value


def _one_of(choices: tuple[Any, ...]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if value not in choices:
            raise ValueError(f"one of {', '.join(f'`{choice}`' for choice in choices)}")
        return value

    return read


def _parsed(parse: Callable[[str], _T], wanted: str) -> Callable[[Any], _T]:
    def read(value: Any) -> _T:
        if not isinstance(value, str):
            raise ValueError(f"{wanted}, written as a text")  # noqa: TRY004 - the reader's protocol
        try:
            return parse(value)
        except ValueError:
            raise ValueError(wanted) from None

    return read


def _matching(pattern: str, wanted: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(wanted)
        return value

    return read


_accelerator: Callable[[Any], Accelerator] = _one_of(get_args(Accelerator))
_capability = _parsed(ComputeCapability.parse, "a compute capability such as `8.9`")
_driver = _parsed(DriverVersion.parse, "a driver version such as `550.54.15`")
_version = _parsed(DottedVersion.parse, "a version such as `2.35`")
_gfx = _matching(r"gfx[0-9a-f]{3,5}(?::\w+[+-])*", "an AMD target such as `gfx1100`")
_pci_id = _matching(r"[0-9a-f]{4}:[0-9a-f]{4}", "`vendor:device` in hex, such as `10de:2684`")
