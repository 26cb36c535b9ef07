"""Facts that a text states: versions, devices and paths, each with its line, the most trusted first."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, field
from bnbenv.errors import UsageError
from bnbenv.machine.target import Gpu, Libc, Target
from bnbenv.matrix.gpus import find_gpu
from bnbenv.units import ComputeCapability, CudaVersion, DottedVersion, DriverVersion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bnbenv.doctor.scan import Seen
    from bnbenv.machine.target import Accelerator, Arch, OsName
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import GpuRow, Symptom

_MOST = 24  # statements of one fact
_AFTER_NAME = re.compile(r"\s*\([^)]{0,80}\)?$|\s+(?:with|[0-9.]{1,6} ?GB|Laptop|/|\|).*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One statement: the value as written, its line, and how far it is to be trusted (3 the most)."""

    value: str
    line: int
    trust: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a text states, and what follows from it.

    Attributes:
        stated: name → statements, the most trusted first.
        gpus: NVIDIA and AMD GPUs, by product where one is named, else by capability or target.
        derived: conditions that hold, such as ``os:windows``, each with the lines that it rests on.
    """

    stated: Mapping[str, tuple[Fact, ...]]
    gpus: tuple[Gpu, ...] = ()
    derived: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def best(self, name: str) -> str | None:
        """The most trusted value of a fact."""
        held = self.stated.get(name)
        return held[0].value if held else None

    def lines(self, *names: str) -> tuple[int, ...]:
        """The line of the most trusted statement of each."""
        return tuple(self.stated[name][0].line for name in names if name in self.stated)

    def values(self, name: str) -> tuple[str, ...]:
        """Every value of a fact."""
        return tuple(fact.value for fact in self.stated.get(name, ()))


def stated_facts(seen: Seen, symptoms: Mapping[str, Symptom], matrix: Matrix) -> Facts:
    """The facts that the hits state."""
    stated: dict[str, list[Fact]] = {}
    for symptom, hits in seen.hits.items():
        trust = symptoms[symptom].trust
        for hit in hits:
            for name, value in hit.facts.items():
                fact = Fact(value=value.strip(" '\"`,;").rstrip("."), line=hit.line, trust=trust)
                held = stated.setdefault(name, [])
                if len(held) < _MOST and all((old.value, old.trust) != (fact.value, trust) for old in held):
                    held.append(fact)
    ordered = {
        name: tuple(sorted(held, key=lambda fact: (-fact.trust, fact.line))) for name, held in stated.items()
    }
    facts = Facts(stated=ordered)
    return Facts(stated=ordered, gpus=_gpus(facts, matrix.gpus if "gpu" in ordered else ()))


def _gpus(facts: Facts, rows: Sequence[GpuRow]) -> tuple[Gpu, ...]:
    named = list(dict.fromkeys(_named(facts.values("gpu"), rows)))
    by_capability: list[Gpu] = []
    if not any(
        gpu.compute_capability for gpu in named
    ):  # a name is surer than a number, which may be a library's
        by_capability = list(dict.fromkeys(_by_capability(facts.values("capability"))))
    targets = [value.lower() for value in facts.values("gfx")]
    by_target = [
        Gpu(name=target, gfx=target)
        for target in dict.fromkeys(targets)
        if all(gpu.gfx != target for gpu in named)
    ]
    return (*named, *by_capability, *by_target)


def _named(texts: Sequence[str], rows: Sequence[GpuRow]) -> Iterator[Gpu]:
    for text in texts:
        name = _AFTER_NAME.sub("", text).strip()
        if len(name) > 1:
            try:
                yield find_gpu(rows, name)
            except UsageError:  # a word that only looked like a product, or several products
                continue


def _by_capability(texts: Sequence[str]) -> Iterator[Gpu]:
    for text in texts:
        try:
            capability = ComputeCapability.parse(re.sub(r"\s*,\s*", ".", text.strip("() ")))
        except ValueError:
            continue
        yield Gpu(name=f"compute capability {capability}", compute_capability=capability)


def torch_cuda(facts: Facts) -> CudaVersion | None:
    """Torch's own CUDA version, as its local version or a report states it."""
    local = re.search(r"\+(cu\d{2,3})\b", facts.best("torch") or "")
    return cuda_version(local[1] if local else facts.best("torch_cuda") or "")


def cuda_version(text: str) -> CudaVersion | None:
    """A CUDA version, or ``None`` where the text is none."""
    try:
        return CudaVersion.parse(text)
    except ValueError:
        return None


def target_of(facts: Facts) -> Target:
    """The machine that the text describes; what it does not tell is unknown."""
    os: OsName = "linux"
    if "os:windows" in facts.derived:
        os = "windows"
    elif "os:macos" in facts.derived:
        os = "macos"
    arch: Arch = "aarch64" if "arch:aarch64" in facts.derived or os == "macos" else "x86_64"
    accelerator: Accelerator = "cpu"
    if any(gpu.gfx for gpu in facts.gpus) and "torch:cuda" not in facts.derived:
        accelerator = "rocm"
    elif any(gpu.compute_capability for gpu in facts.gpus):
        accelerator = "cuda"
    glibc, driver = facts.best("glibc"), facts.best("driver")
    return Target(
        name="described",
        os=os,
        arch=arch,
        accelerator=accelerator,
        libc=Libc(family="glibc", version=DottedVersion.parse(glibc)) if glibc and os == "linux" else None,
        wsl="wsl" in facts.derived,
        tegra="tegra" in facts.derived,
        driver=DriverVersion.parse(driver) if driver and accelerator == "cuda" else None,
        gpus=tuple(gpu for gpu in facts.gpus if (gpu.gfx is not None) == (accelerator == "rocm")),
        rocm=facts.best("rocm"),
    )
