"""The rows of `compat/`, one type a kind of fact. Values only; reading them is `load`'s duty.

Named tuples, and made by keyword: their classes take a third of the time that dataclasses take at every
start, and thousands of rows are made at each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bnbenv.namedtuple import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.machine.target import Arch, OsName
    from bnbenv.units import ComputeCapability, CudaVersion, DottedVersion, DriverVersion

Backend = Literal["cpu", "cuda", "rocm", "xpu", "mps"]
Seen = Literal["yes", "no", "not-run"]
RepairPart = Literal[
    "reinstall", "missing", "bitsandbytes", "torch", "hugging-face", "venv", "lock", "outside", "stop"
]
TypedCommand = Literal[
    "install", "upgrade", "uninstall", "unset",
    "create", "detect", "doctor", "memory", "quantize", "resolve", "rollback", "verify",
]  # fmt: skip


class Provenance(NamedTuple):
    """Where a row comes from.

    Attributes:
        how: ``measured`` from the artefact itself, or ``published`` by somebody.
        source: a wheel's file name with its sha256, or a document.
        checked: the date, ``YYYY-MM-DD``.
        confidence: of a published row.
    """

    how: Literal["measured", "published"]
    source: str
    checked: str
    confidence: Literal["high", "medium", "low"] | None = None


class NativeLibrary(NamedTuple):
    """One native library of a bitsandbytes wheel.

    Attributes:
        name: the file name, such as ``libbitsandbytes_cuda126.so``.
        toolkit: of a CUDA or ROCm library, as the name spells it: ``12.6``, ``6.4``; of XPU ``2025``.
        cubins: executable images, ascending.
        ptx: virtual architectures of the PTX it holds, ascending.
        ptx_linkage: ``executable`` if the driver may JIT it, ``relocatable`` if it only stands in
            objects for a linker, ``None`` without PTX.
        gfx: targets of ROCm code objects.
        needed: DT_NEEDED, or the imports of a DLL.
        run_paths: DT_RUNPATH or DT_RPATH.
        symbol_versions: highest version per family (``GLIBC``, ``GLIBCXX``, ``CXXABI``).
    """

    name: str
    backend: Backend
    toolkit: str | None
    cubins: tuple[ComputeCapability, ...] = ()
    ptx: tuple[ComputeCapability, ...] = ()
    ptx_linkage: Literal["relocatable", "executable"] | None = None
    gfx: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    run_paths: tuple[str, ...] = ()
    symbol_versions: Mapping[str, DottedVersion] = {}


class BitsandbytesWheel(NamedTuple):
    """One published bitsandbytes wheel.

    Attributes:
        wheel: the file name; with `sha256` the identity of the row.
        platform: the platform tag, such as ``manylinux_2_24_x86_64`` or ``any``.
        os, arch: what the tag stands for. An ``any`` wheel holds x86-64 Linux libraries whatever its tag.
        requires_python: the specifier of the metadata, stripped, or ``None``.
        requires_torch: the specifier on torch (``""`` for any), or ``None`` where none is declared.
        broken: why nobody should install it, with a reference; ``None`` for a sound release.
        size, uploaded: ``None`` and ``""`` where nobody who published the wheel's name told them.
        l4t: the major release of L4T that it is made for; ``None`` for wheels of any other machine.
    """

    version: str
    wheel: str
    sha256: str
    size: int | None
    platform: str
    os: OsName
    arch: Arch
    uploaded: str
    requires_python: str | None
    requires_torch: str | None
    requires: tuple[str, ...]
    libraries: tuple[NativeLibrary, ...]
    provenance: Provenance
    broken: str | None = None
    l4t: int | None = None


class TorchBuild(NamedTuple):
    """One build of a torch release for one platform.

    Attributes:
        version: the public version, such as ``2.14.1``, without a local part.
        build: ``cu126``, ``cpu``, ``rocm6.4``, ``xpu``, ``mps`` (macOS arm64) or ``jp6.cu126`` (JetPack 6).
        index: the index that carries it: ``pypi``, ``pytorch-cu126``, … or a wheelhouse's name.
        local: the local version under which that index carries it (``cu126``, ``cpu``), ``None`` on PyPI.
        pythons: minor versions for which a wheel exists, ascending.
        cuda: of a CUDA build, read from ``torch/version.py``.
        rocm: of a ROCm build.
        cubins: of ``libtorch_cuda.so`` alone.
        ptx: executable PTX, ascending.
        gfx: targets of a ROCm build that are known to be in it.
        oneapi: year of the oneAPI that an XPU build is made with, such as ``2025``.
        glibc: the floor of the manylinux tag.
        symbol_versions: the highest version per family that its core libraries ask for, measured where the
            tag promises less than they keep (``manylinux1``).
        macos: the floor of the macosx tag.
        triton: the requirement on triton with its local name (``triton==3.5.0``, ``triton-rocm==…``).
        nvidia: the nvidia packages required, names with versions.
        size: bytes of one wheel, as the index tells; ``None`` where unknown.
        l4t: the major release of L4T that it is made for; ``None`` for builds of any other machine.
    """

    version: str
    build: str
    index: str  # type: ignore[assignment]  # hides tuple.index, which nobody wants of a row
    local: str | None
    os: OsName
    arch: Arch
    pythons: tuple[str, ...]
    provenance: Provenance
    cuda: CudaVersion | None = None
    rocm: str | None = None
    cubins: tuple[ComputeCapability, ...] = ()
    ptx: tuple[ComputeCapability, ...] = ()
    gfx: tuple[str, ...] = ()
    oneapi: str | None = None
    glibc: DottedVersion | None = None
    macos: DottedVersion | None = None
    triton: str | None = None
    nvidia: tuple[str, ...] = ()
    size: int | None = None
    symbol_versions: Mapping[str, DottedVersion] = {}
    l4t: int | None = None

    @property
    def oldest_glibc(self) -> DottedVersion | None:
        """The glibc with which it can be installed and loaded: of tag and symbols, the newer."""
        asked = [floor for floor in (self.glibc, self.symbol_versions.get("GLIBC")) if floor is not None]
        return max(asked, default=None)

    @property
    def pin(self) -> str:
        """The requirement that names exactly this build on its index."""
        return f"torch=={self.version}" + (f"+{self.local}" if self.local else "")


class DriverFloor(NamedTuple):
    """The oldest driver that runs any toolkit of a CUDA major version (minor-version compatibility).

    Attributes:
        windows_arm: on Windows for ARM, where that is another one.
    """

    major: int
    linux: DriverVersion
    windows: DriverVersion
    provenance: Provenance
    windows_arm: DriverVersion | None = None


class DriverBranch(NamedTuple):
    """A driver branch and the CUDA version its driver reports."""

    branch: int
    cuda: CudaVersion
    provenance: Provenance


class ArchitectureDrivers(NamedTuple):
    """The driver branches that know an architecture, by compute capability.

    Attributes:
        first: first branch, ``None`` where it is older than every branch of interest.
        last: last branch, ``None`` while support goes on.
    """

    name: str
    capabilities: tuple[ComputeCapability, ...]
    first: int | None
    last: int | None
    provenance: Provenance


class IndexRow(NamedTuple):
    """A package index by name.

    Attributes:
        name: ``pypi``, ``pytorch-cu126``, …
        family: ``pypi``, ``pytorch``, ``nvidia``, ``jetson``.
        url: ``None`` for PyPI, whose address comes from uv or the user's configuration.
        companions: packages that must come from the same index as torch when they are wanted.
    """

    name: str
    family: str
    url: str | None
    companions: tuple[str, ...]
    provenance: Provenance


class Floor(NamedTuple):
    """What a release of a package needs of another at run time, whatever its metadata says.

    Attributes:
        package: whose releases, such as ``transformers``.
        versions: which releases, a specifier.
        needs: package → specifier; ``python`` names the interpreter.
        effect: what happens below the floor.
    """

    package: str
    versions: str
    needs: Mapping[str, str]
    effect: str
    provenance: Provenance


class PackageSet(NamedTuple):
    """One consistent set of package ranges of a profile, proven by resolution.

    Attributes:
        name: unique within the profile, newest first, such as ``5.23``.
        python: specifier on the interpreter.
        torch: specifier on torch.
        packages: requirement ranges: package → specifier, bitsandbytes included.
        cuda: specifier on the CUDA toolkit of torch's build; empty where any build will do.
        platforms: ``linux-x86_64`` and the like, where its packages have files for these alone; empty: all.
    """

    name: str
    python: str
    torch: str
    packages: Mapping[str, str]
    cuda: str = ""
    platforms: tuple[str, ...] = ()


class Profile(NamedTuple):
    """A purpose and the packages that serve it.

    Attributes:
        sets: package sets, newest first.
        min_capability: the lowest compute capability on which the profile's product runs.
        devices: ``any``, or ``gpu`` where a CPU is no use.
        excludes: packages that must not stand beside it.
        wanted_by: who wants it, one sentence.
        note: when it is the wrong tool, and what serves instead.
        builds: packages from source that compile their kernels at first use, with a C++ compiler and CUDA's.
        imports: modules that must import where the profile has no bitsandbytes to test.
    """

    name: str
    summary: str
    sets: tuple[PackageSet, ...]
    provenance: Provenance
    min_capability: ComputeCapability | None = None
    devices: Literal["any", "gpu"] = "any"
    excludes: tuple[str, ...] = ()
    wanted_by: str = ""
    note: str = ""
    builds: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()


class KnownFault(NamedTuple):
    """A fault of upstream that a failed check may match exactly.

    Attributes:
        id: stable name.
        package: ``bitsandbytes`` or ``torch``.
        versions: specifier on its version.
        device: ``cpu``, ``cuda``, …
        cpu_flags: flags that the processor must have for the fault to show.
        checks: names of the self-test's checks that it explains.
        dtypes: as the self-test names them; empty for all.
        shapes: a condition on a check's ``shape`` facts: key → rule (see the self-test).
        workaround: what the user can do.
        reproduction: a command or short program that shows it.
    """

    id: str
    package: str
    versions: str
    device: str
    cpu_flags: tuple[str, ...]
    checks: tuple[str, ...]
    dtypes: tuple[str, ...]
    shapes: Mapping[str, str]
    summary: str
    workaround: str
    reproduction: str
    provenance: Provenance


class LoaderRule(NamedTuple):
    """How the releases of a range choose their native library.

    Attributes:
        versions: specifier on bitsandbytes.
        match: ``exact`` toolkit only, or ``nearest`` of the same major.
        missing: what happens when no library fits: ``raise`` at import, silently the ``cpu`` library,
            or a ``mock`` that raises at the first native call.
        nocublaslt_below: below this highest compute capability the ``_nocublaslt`` variant is taken.
        override: the variables that force a toolkit, and what each does with malformed values is
            described by `override_rule`.
        override_place: whether the value takes the ``version``'s place in the name, or is put at its
            ``end``, behind the variant, where it names nothing.
        plain_for: the only capabilities for which the variant is not taken, where a release lists them.
        fails_below: below this highest compute capability the import raises, by a fault of the loader.
    """

    versions: str
    match: Literal["exact", "nearest"]
    missing: Literal["raise", "cpu", "mock"]
    override: tuple[str, ...]
    override_rule: str
    provenance: Provenance
    nocublaslt_below: ComputeCapability | None = None
    override_place: Literal["version", "end"] = "version"
    plain_for: tuple[ComputeCapability, ...] = ()
    fails_below: ComputeCapability | None = None


class Hazard(NamedTuple):
    """A package whose mere presence breaks a profile.

    Attributes:
        package: its normalised name.
        versions: specifier, ``""`` for all.
        when: package → specifier of what it breaks beside.
        mechanism: what happens, measured or read in source.
        instead: the profile that serves what the package is for, in an environment of its own.
        absent: packages that must not be there for it to happen.
        itself: the package alone fails there; the others go on working.
        successor: the profile of what is maintained in its place, where `instead` holds the package itself.
    """

    package: str
    versions: str
    when: Mapping[str, str]
    mechanism: str
    provenance: Provenance
    instead: str | None = None
    absent: tuple[str, ...] = ()
    itself: bool = False
    successor: str | None = None


class Coexistence(NamedTuple):
    """What was seen of packages that stand in one environment with bitsandbytes.

    Attributes:
        name: the combination, as the table calls it.
        packages: the packages in question with their versions; ``""`` where no version was found.
        beside: what stood there with them.
        resolves, installs, imports: step by step; ``not-run`` after the step that failed or was left out.
        quantised_layer: an adapter of peft on a 4-bit layer answers as before, and learns.
        other_layer: the same on a layer that is not quantised.
        note: the error, or why it was not run.
    """

    name: str
    packages: Mapping[str, str]
    beside: Mapping[str, str]
    provenance: Provenance
    resolves: Seen = "not-run"
    installs: Seen = "not-run"
    imports: Seen = "not-run"
    quantised_layer: Seen = "not-run"
    other_layer: Seen = "not-run"
    note: str = ""


class Cause(NamedTuple):
    """One thing that can be wrong; the words of `repair` and `typed` are explained in ``causes.toml``."""

    id: str
    definition: str
    differs: str
    remedy: str
    repair: tuple[RepairPart, ...]
    typed: tuple[TypedCommand, ...]
    provenance: Provenance


class GpuRow(NamedTuple):
    """A GPU product.

    Attributes:
        name: as the vendor writes it.
        pci_ids: device ids, four upper-case hex digits, without the vendor.
        capabilities: compute capabilities of the chips sold under the name; more than one is ambiguous.
        gfx: AMD targets.
    """

    name: str
    pci_ids: tuple[str, ...]
    capabilities: tuple[ComputeCapability, ...]
    gfx: tuple[str, ...]
    provenance: Provenance


class Toolkit(NamedTuple):
    """A CUDA toolkit release and the driver that was published with it.

    Attributes:
        release: such as ``12.8.1``.
        linux, windows: the toolkit's own driver; ``None`` where none was named for that system.
    """

    release: str
    linux: DriverVersion | None
    windows: DriverVersion | None
    provenance: Provenance


class CapabilityRow(NamedTuple):
    """The toolkits that compile for a compute capability.

    Attributes:
        first, last: toolkit versions; `last` is ``None`` while support goes on.
        tegra: found on integrated Tegra chips, whose binaries are not interchangeable with the desktop's.
    """

    capability: ComputeCapability
    first: CudaVersion
    last: CudaVersion | None
    tegra: bool
    provenance: Provenance


class ForwardCompatibility(NamedTuple):
    """A class of GPUs and whether NVIDIA's forward-compatibility packages serve it."""

    gpus: str
    supported: bool
    packages: str
    provenance: Provenance


class Claim(NamedTuple):
    """What guides say, in our words, and what the measurement says.

    Attributes:
        id: stable name.
        claim: the claim, paraphrased.
        verdict: what became of it.
        evidence: what was measured or read instead.
    """

    id: str
    claim: str
    verdict: Literal["true", "outdated", "misleading", "partly-true", "unsupported", "harmful", "false"]
    evidence: str
    provenance: Provenance


class BrokenRelease(NamedTuple):
    """A release of bitsandbytes that nobody should install.

    Attributes:
        versions: a specifier.
        os: the systems concerned; empty for all.
    """

    versions: str
    os: tuple[str, ...]
    reason: str
    provenance: Provenance


class Caveat(NamedTuple):
    """What a release of bitsandbytes does wrong on one kind of accelerator, or not gravely enough to shun it.

    Attributes:
        versions: a specifier.
        accelerator: the one concerned; empty for all.
        reason: what is wrong, to follow the release's name.
        mended: the first release without it.
        profile: the only one that it matters to; empty for all.
    """

    versions: str
    accelerator: str
    severity: Literal["error", "warning"]
    reason: str
    mended: str
    provenance: Provenance
    profile: str = ""


class VerifiedStack(NamedTuple):
    """A stack whose self-test passed on a real machine, looked at by a person before it came here.

    Attributes:
        torch, build: release and build of torch, as in `TorchBuild`.
        device: as the machine names it, such as ``NVIDIA GeForce RTX 4090``.
        capability: the GPU's compute capability or gfx target; ``None`` for a processor.
        driver: ``None`` without a GPU.
        verdict: ``degraded`` where listed faults of upstream were met, and nothing else.
        digest: sha256 of the block of ``verify --record``.
    """

    torch: str
    build: str
    bitsandbytes: str
    python: str
    os: OsName
    arch: Arch
    accelerator: str
    device: str
    capability: str | None
    driver: str | None
    level: Literal["quick", "full", "train"]
    verdict: Literal["passed", "degraded"]
    digest: str
    provenance: Provenance


class PublishedBuild(NamedTuple):
    """A torch build that PyPI does not carry, for the releases of a run; `TorchBuild` rows follow.

    Attributes:
        releases: public versions.
        build: as in `TorchBuild`.
        pythons: minor versions.
        index: another one than PyTorch's, which are named after the build.
        local: the local version on that other index.
        l4t: as in `TorchBuild`.
    """

    releases: tuple[str, ...]
    build: str
    os: OsName
    arch: Arch
    pythons: tuple[str, ...]
    provenance: Provenance
    cubins: tuple[ComputeCapability, ...] = ()
    gfx: tuple[str, ...] = ()
    glibc: DottedVersion | None = None
    triton: str | None = None
    oneapi: str | None = None
    index: str | None = None  # type: ignore[assignment]  # as above
    local: str | None = None
    l4t: int | None = None


class Symptom(NamedTuple):
    """What a line of a log may say.

    Attributes:
        id: stable name; implications use it.
        kind: ``failure`` ended something; ``symptom`` is shared by several causes and decides nothing alone;
            ``notice`` is said of things that work; ``success`` shows that a run got somewhere; ``fact`` tells
            a version, a path or a device.
        literals: texts in lower case; a line without any of them is not looked at further.
        pattern: a regular expression, case-insensitive, whose repeats are bounded. Named groups are facts.
        trust: of several statements of a fact, the most trusted counts: 3 a running process, 2 what is
            installed, 1 what a command asked for or a library's name.
    """

    id: str
    kind: Literal["failure", "symptom", "notice", "success", "fact"]
    literals: tuple[str, ...]
    pattern: str
    provenance: Provenance
    trust: int = 2


class Implication(NamedTuple):
    """What symptoms and facts mean together.

    Attributes:
        id: stable name.
        cause: an id of the causes.
        all, any, none: conditions: the id of a symptom, a derived fact such as ``os:windows``, or a
            comparison such as ``bitsandbytes < 0.43``. All of `all`, at least one of `any` (where there are
            some) and nothing of `none` must hold; what is unknown does not hold.
        weight: from 0 to 100; 50 names the cause, 80 decides.
    """

    id: str
    cause: str
    weight: int
    provenance: Provenance
    all: tuple[str, ...] = ()
    any: tuple[str, ...] = ()
    none: tuple[str, ...] = ()


class Precedence(NamedTuple):
    """A cause that explains others: where both are named, it comes first."""

    cause: str
    over: tuple[str, ...]
    provenance: Provenance


class Question(NamedTuple):
    """How to ask for a fact that a text lacks.

    Attributes:
        fact: its name.
        ask: the question, as one sentence.
        command: what prints the answer, or ``""``.
        all, none: derived facts of the machine that it is asked of: all of `all` hold and nothing of `none`.
    """

    fact: str
    ask: str
    command: str
    provenance: Provenance
    all: tuple[str, ...] = ()
    none: tuple[str, ...] = ()


class ModelModule(NamedTuple):
    """One module of a model, or one for each layer or expert.

    Attributes:
        name: with ``*`` for the layer and for the expert; of a `parameter`, its full name.
        kind: only a ``linear`` is quantised.
        weight: the shape; each dimension a sum of products of keys of config.json.
        bias: ``true``, or the key of config.json that decides; empty for none.
        when: a key that must be true, or ``sparse`` or ``dense`` for layers with and without experts.
        each: the key that counts the second ``*``.
    """

    name: str
    kind: Literal["embedding", "linear", "norm", "head", "parameter"]
    weight: tuple[str, ...]
    bias: str = ""
    when: str = ""
    each: str = ""


class ModelType(NamedTuple):
    """What models of a type are made of.

    Attributes:
        names: values of ``model_type`` in config.json.
        transformers: the releases whose classes look like this; a specifier, ``""`` for all.
        defaults: what the class takes for keys that a config.json leaves out.
        attention: ``eager`` where the class has no fused one.
    """

    names: tuple[str, ...]
    transformers: str
    defaults: Mapping[str, int | bool]
    modules: tuple[ModelModule, ...]
    provenance: Provenance
    attention: Literal["sdpa", "eager"] = "sdpa"
