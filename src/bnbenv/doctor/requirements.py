"""Whether the packages around bitsandbytes have what their metadata ask for, and suit this torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bnbenv.doctor.stack import WATCHED
from bnbenv.judge.rules.rule import finding
from bnbenv.torch_family import is_torch_family

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from bnbenv.env.installed import Distribution, Installed
    from bnbenv.env.torch import InstalledTorch
    from bnbenv.judge.stack import Finding, Severity

_HUGGING_FACE = frozenset(
    {"transformers", "accelerate", "peft", "trl", "safetensors", "tokenizers", "huggingface-hub"}
)
# What transformers compares at import, and refuses to go on without.
_CHECKED_AT_IMPORT = frozenset(
    {"tokenizers", "huggingface-hub", "safetensors", "accelerate", "numpy", "regex", "tqdm", "pyyaml"}
)
_LARGEST = 1 << 20  # bytes of METADATA that are read
_REQUIRES = re.compile(rb"(?mi)^Requires-Dist:[ \t]*([^\r\n]+)")
_PLAIN = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*)\s*\(?(?P<specifier>(?:[<>=!~]=?=?\s*[\w.*+!-]+\s*,?\s*)*)\)?\s*"
)
_BUILT_FOR = re.compile(r"torch(\d)\.?(\d+)")
_SHOWN = 5
# Package, its releases, what they import without declaring it, what mends that, and where it is known from.
_UNDECLARED = (
    ("bitsandbytes", ">=0.39,<0.42", "scipy", "Upgrade bitsandbytes.", "bitsandbytes source at the tags"),
    ("triton", "<3.3", "setuptools", "Install setuptools.", "triton 2.2.0 to 3.4.0, imported without it"),
)


def check_requirements(
    seen: Installed, torch: InstalledTorch | None, *, hazards: Collection[str], bitsandbytes: str | None
) -> Iterator[Finding]:
    """Compare what is installed with the requirements of the packages around bitsandbytes.

    Args:
        seen: the environment with its base.
        torch: the torch that would be imported.
        hazards: packages that quantise too, whose pins clash with others'.
        bitsandbytes: its version.
    """
    for owner in sorted({*WATCHED, *hazards}):
        found = seen.find(owner)
        if found is not None and found.installer != "conda":
            yield from _unmet(found, seen, hazard=owner in hazards)
    yield from _undeclared(seen, bitsandbytes)
    yield from _built_for_another(seen, torch)


def requirements_of(metadata: Path, seen: Installed) -> Iterator[tuple[str, str]]:
    """The names and specifiers that hold without extras; lines that cannot be read are passed over."""
    try:
        if not metadata.is_file():
            return
        with metadata.open("rb") as stream:
            head = stream.read(_LARGEST)
    except OSError:
        return
    for match in _REQUIRES.finditer(re.split(rb"\r?\n\r?\n", head, maxsplit=1)[0]):
        text = match[1].decode("utf-8", errors="replace").strip()
        if "extra ==" in text or "extra==" in text:
            continue
        # The reader of markers costs more than everything else here, and most lines have none.
        if plain := _PLAIN.fullmatch(text):
            yield plain["name"], plain["specifier"] or ""
        elif (read := _with_marker(text, seen)) is not None:
            yield read


def _with_marker(text: str, seen: Installed) -> tuple[str, str] | None:
    from bnbenv.markers import holding, of_python

    asked = holding(text, of_python(seen.python))
    return (asked.name, str(asked.specifier)) if asked is not None else None


def _unmet(owner: Distribution, seen: Installed, *, hazard: bool) -> Iterator[Finding]:
    from packaging.specifiers import InvalidSpecifier
    from packaging.version import InvalidVersion

    from bnbenv.judge.ranges import within
    from bnbenv.names import normalized

    missing: dict[str, str] = {}
    other: dict[str, str] = {}
    for spelt, specifier in requirements_of(owner.metadata / "METADATA", seen):
        name = normalized(spelt)
        found = seen.find(name)
        if found is None:
            missing[name] = specifier
            continue
        try:
            fits = within(found.version, specifier)
        except (InvalidVersion, InvalidSpecifier):
            continue
        if not fits:
            other[name] = f"{specifier}, installed is {found.version}"
    if owner.name == "bitsandbytes":
        missing.pop("torch", None)
        other.pop("torch", None)  # the judge tells of both
    for code, severity, names in _missing_codes(owner.name, missing):
        yield finding(
            code,
            severity,
            owner.name,
            f"{owner.name} {owner.version} needs {names[0]}, which is not installed"
            + (f", and {len(names) - 1} more" if len(names) > 1 else ""),
            *(f"{name}{missing[name]}" for name in names[:_SHOWN]),
            remedy=f"Install what {owner.name} needs.",
            source=f"metadata of {owner.name} {owner.version}",
        )
    for name, why in sorted(other.items()):
        code, severity = _other_code(owner.name, name, hazard=hazard)
        yield finding(
            code,
            severity,
            owner.name,
            f"{owner.name} {owner.version} needs {name} {why}",
            need=f"{name} {why.partition(',')[0]}",
            remedy=f"Install releases of {owner.name} and {name} that agree.",
            source=f"metadata of {owner.name} {owner.version}",
        )


def _missing_codes(owner: str, missing: Mapping[str, str]) -> Iterator[tuple[str, Severity, list[str]]]:
    """The missing packages by what their absence means."""
    cuda = sorted(name for name in missing if name.startswith(("nvidia-", "cuda-")))
    triton = sorted(name for name in missing if "triton" in name)
    rest = sorted(set(missing) - set(cuda) - set(triton))
    if cuda:
        yield "cuda-runtime-not-found", "error" if owner == "torch" else "warning", cuda
    if triton:
        yield "torch-triton-mismatch", "warning", triton
    if rest:
        yield "missing-python-dep", "error", rest


def _other_code(owner: str, name: str, *, hazard: bool) -> tuple[str, Severity]:
    if hazard and owner not in WATCHED:
        return "quant-lib-conflict", "warning"
    if owner == "torch" and "triton" in name:
        return "torch-triton-mismatch", "warning"
    if owner in _HUGGING_FACE and (name in _HUGGING_FACE or owner == "transformers"):
        refuses = owner == "transformers" and name in _CHECKED_AT_IMPORT
        return "hf-stack-version-mismatch", "error" if refuses else "warning"
    return "requirement-unmet", "warning"


def _undeclared(seen: Installed, bitsandbytes: str | None) -> Iterator[Finding]:
    from packaging.version import InvalidVersion

    from bnbenv.judge.ranges import within

    triton = seen.find("triton")
    installed = {"bitsandbytes": bitsandbytes, "triton": triton.version if triton else None}
    for owner, versions, name, remedy, source in _UNDECLARED:
        release = installed[owner]
        if release is None or seen.find(name) is not None:
            continue
        try:
            if not within(release, versions):
                continue
        except InvalidVersion:
            continue
        yield finding(
            "missing-python-dep",
            "error",
            owner,
            f"{owner} {release} imports {name}, which is not installed and which it does not declare",
            name,
            remedy=remedy,
            source=source,
        )


def _built_for_another(seen: Installed, torch: InstalledTorch | None) -> Iterator[Finding]:
    """Extensions whose version names the torch that they were built for: `2.5.8+cu122torch2.3`."""
    if torch is None or not torch.version:
        return
    own = tuple(torch.version.split(".")[:2])
    for found in seen.distributions:
        local = found.version.partition("+")[2]
        told = _BUILT_FOR.search(local)
        if told is None or is_torch_family(found.name) or (told[1], told[2]) == own:
            continue
        yield finding(
            "quant-ext-torch-abi",
            "warning",
            found.name,
            f"{found.name} {found.version} was built for torch {told[1]}.{told[2]}, "
            f"and installed is {torch.full_version}",
            "its native part misses symbols of that torch when it is imported",
            remedy=f"Install a build of {found.name} for this torch, or remove it.",
            source="the version of the package",
        )
