"""The matrix as one value: the rows of the parts that a command asked for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NoReturn

from bnbenv.dataclass import dataclass

if TYPE_CHECKING:
    from bnbenv.matrix.rows import (
        ArchitectureDrivers,
        BitsandbytesWheel,
        BrokenRelease,
        CapabilityRow,
        Cause,
        Caveat,
        Claim,
        Coexistence,
        DriverBranch,
        DriverFloor,
        Floor,
        ForwardCompatibility,
        GpuRow,
        Hazard,
        Implication,
        IndexRow,
        KnownFault,
        LoaderRule,
        ModelType,
        Precedence,
        Profile,
        PublishedBuild,
        Question,
        Symptom,
        Toolkit,
        TorchBuild,
        VerifiedStack,
    )

_NOT_LOADED: Any = object()

PARTS = (
    "bitsandbytes",
    "torch",
    "driver_floors",
    "driver_branches",
    "architectures",
    "toolkits",
    "capabilities",
    "forward_compatibility",
    "gpus",
    "gpus_named",
    "indexes",
    "floors",
    "profiles",
    "hazards",
    "coexistence",
    "known_faults",
    "causes",
    "loaders",
    "claims",
    "broken",
    "caveats",
    "verified",
    "bitsandbytes_published",
    "torch_published",
    "symptoms",
    "implications",
    "precedences",
    "questions",
    "model_types",
)


class PartNotLoaded(AttributeError):  # noqa: N818 - reads as what it is
    """A part was used that nobody had asked `load` for: a bug of the caller."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Matrix:
    """Rows by part; a part that was not loaded raises `PartNotLoaded` when it is used.

    Attributes:
        revision: the newest revision of all shipped files of the matrix, loaded or not, ``YYYY.MM.DD``;
            behind a ``+`` that of the rows that were added on this machine.
    """

    revision: str
    bitsandbytes: tuple[BitsandbytesWheel, ...] = _NOT_LOADED
    torch: tuple[TorchBuild, ...] = _NOT_LOADED
    driver_floors: tuple[DriverFloor, ...] = _NOT_LOADED
    driver_branches: tuple[DriverBranch, ...] = _NOT_LOADED
    architectures: tuple[ArchitectureDrivers, ...] = _NOT_LOADED
    toolkits: tuple[Toolkit, ...] = _NOT_LOADED
    capabilities: tuple[CapabilityRow, ...] = _NOT_LOADED
    forward_compatibility: tuple[ForwardCompatibility, ...] = _NOT_LOADED
    gpus: tuple[GpuRow, ...] = _NOT_LOADED
    gpus_named: tuple[GpuRow, ...] = _NOT_LOADED
    indexes: tuple[IndexRow, ...] = _NOT_LOADED
    floors: tuple[Floor, ...] = _NOT_LOADED
    profiles: tuple[Profile, ...] = _NOT_LOADED
    hazards: tuple[Hazard, ...] = _NOT_LOADED
    coexistence: tuple[Coexistence, ...] = _NOT_LOADED
    known_faults: tuple[KnownFault, ...] = _NOT_LOADED
    causes: tuple[Cause, ...] = _NOT_LOADED
    loaders: tuple[LoaderRule, ...] = _NOT_LOADED
    claims: tuple[Claim, ...] = _NOT_LOADED
    broken: tuple[BrokenRelease, ...] = _NOT_LOADED
    caveats: tuple[Caveat, ...] = _NOT_LOADED
    verified: tuple[VerifiedStack, ...] = _NOT_LOADED
    bitsandbytes_published: tuple[BitsandbytesWheel, ...] = _NOT_LOADED
    torch_published: tuple[PublishedBuild, ...] = _NOT_LOADED
    symptoms: tuple[Symptom, ...] = _NOT_LOADED
    implications: tuple[Implication, ...] = _NOT_LOADED
    precedences: tuple[Precedence, ...] = _NOT_LOADED
    questions: tuple[Question, ...] = _NOT_LOADED
    model_types: tuple[ModelType, ...] = _NOT_LOADED

    def __post_init__(self) -> None:
        for name in PARTS:
            if getattr(self, name) is _NOT_LOADED:
                object.__delattr__(self, name)  # an empty slot ends in __getattr__ below

    def __getattr__(self, name: str) -> NoReturn:
        if name in PARTS:
            raise PartNotLoaded(f"the part {name!r} of the matrix was not loaded: name it in load()")
        raise AttributeError(name)

    def with_torch(self, rows: tuple[TorchBuild, ...]) -> Matrix:
        """The same matrix with other rows of torch; parts that were not loaded stay so."""
        parts: dict[str, Any] = {name: getattr(self, name) for name in PARTS if hasattr(self, name)}
        return Matrix(revision=self.revision, **{**parts, "torch": rows})

    def with_profile(self, row: Profile) -> Matrix:
        """The same matrix with one profile more."""
        parts: dict[str, Any] = {name: getattr(self, name) for name in PARTS if hasattr(self, name)}
        return Matrix(revision=self.revision, **{**parts, "profiles": (*self.profiles, row)})

    def is_older_than(self, revision: str) -> bool:
        """Whether its shipped files are older than those of another revision; any other text is not newer."""
        shipped = revision.partition("+")[0]
        newer = re.fullmatch(r"\d{4}\.\d{2}\.\d{2}", shipped) is not None
        return newer and self.revision.partition("+")[0] < shipped

    def __repr__(self) -> str:
        loaded = ", ".join(name for name in PARTS if hasattr(self, name))
        return f"Matrix(revision={self.revision!r}, parts: {loaded})"
