"""What may be installed together, and what is said about it: the judge's values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bnbenv.dataclass import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.machine.target import Gpu
    from bnbenv.matrix.rows import BitsandbytesWheel, TorchBuild

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A combination to be judged.

    Attributes:
        python: the minor version, such as ``3.12``.
        torch: the build.
        bitsandbytes: the wheel; ``None`` where the profile has none.
        packages: the other packages, name → version (``==`` omitted) or specifier.
        profile: the purpose, which decides what is needed of the GPU.
        env: environment variables that reach the process, such as ``BNB_CUDA_VERSION``.
        provided: names of packages that a base interpreter brings and bnbenv may not change.
    """

    python: str
    torch: TorchBuild
    bitsandbytes: BitsandbytesWheel | None
    profile: str
    packages: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    provided: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """What mends a finding, in words and in commands to type."""

    summary: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to tell.

    Attributes:
        code: an id of ``compat/causes.toml``.
        severity: only what makes something worse for the user is a warning; notices are info.
        subject: what it is about: a package, a GPU, a variable, a file.
        summary: one sentence.
        evidence: the facts compared, one a line.
        source: where the rule comes from.
        undecided: the matrix lacks the fact, so that `works` cannot be told.
        need: what would make the finding go away, in a few words, such as ``driver >= 580``.
    """

    code: str
    severity: Severity
    subject: str
    summary: str
    evidence: tuple[str, ...] = ()
    remedy: Remedy | None = None
    source: str = ""
    undecided: bool = False
    need: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How one GPU is served.

    Attributes:
        torch, bitsandbytes: such as ``cubin 8.6``, ``relocatable PTX 12.0``, ``gfx1100``; ``unknown`` where
            nothing tells, ``None`` where nothing serves it.
    """

    gpu: Gpu
    torch: str | None
    bitsandbytes: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The judge's answer.

    Attributes:
        findings: most severe first.
        library: the library that the release's loader would take; ``None`` where it finds none.
        coverage: one entry a visible GPU.
    """

    findings: tuple[Finding, ...]
    library: str | None
    coverage: tuple[Coverage, ...]

    @property
    def works(self) -> bool | None:
        """False with an error, ``None`` where a deciding fact is unknown, else True."""
        if any(finding.severity == "error" for finding in self.findings):
            return False
        if any(finding.undecided for finding in self.findings):
            return None
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked of `solve`; specifiers are PEP 440, ``None`` means any.

    With `prefer` ``verified`` the newest stack that was verified on such a machine comes before all others.
    """

    profile: str
    torch: str | None = None
    bitsandbytes: str | None = None
    cuda: str | None = None
    python: str | None = None
    cpu: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    prefer: Literal["newest", "verified"] = "newest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """What the indexes have, as far as it is known. The default assumes that every index answers.

    Attributes:
        unavailable: names of indexes that cannot be used.
        builds: torch builds that a wheelhouse or an index of the user's carries beside the matrix.
        listed: index name → (torch version, build, python minor) that it was seen to list;
            an index that is absent here is believed to hold what the matrix says.
    """

    unavailable: frozenset[str] = frozenset()
    builds: tuple[TorchBuild, ...] = ()
    listed: Mapping[str, frozenset[tuple[str, str, str]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A stack that was passed over, and the finding that rejected it."""

    stack: Stack
    finding: Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """The best stack."""

    stack: Stack
    judgement: Judgement
    passed_over: tuple[Rejection, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsolvable:
    """No stack has no error.

    Attributes:
        blocking: a smallest set of facts that cannot hold together.
        nearest: the stacks that fail least, each with what it would need.
    """

    blocking: tuple[str, ...]
    nearest: tuple[tuple[Stack, tuple[str, ...]], ...]
    findings: tuple[Finding, ...] = ()
