"""Judge a combination of releases that the user names. No network, nothing is installed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bnbenv.errors import UsageError
from bnbenv.judge.lookup import NOT_IN_MATRIX
from bnbenv.judge.stack import Stack
from bnbenv.matrix.rows import BitsandbytesWheel, Provenance, TorchBuild
from bnbenv.units import CudaVersion, RocmVersion
from bnbenv.workflows.answers import coverage_to_dict, finding_to_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.judge.stack import Judgement
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix

_VERSION = re.compile(r"\d+(?:\.\d+)*(?:[a-z0-9.]*)?")
_UNKNOWN = Provenance(how="published", source=NOT_IN_MATRIX, checked="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """What the user asks about; texts as typed.

    Attributes:
        torch: ``2.9.1`` or ``2.9.1+`` and a build, such as that of CUDA 12.8.
        env: variables of the process.
        packages: name → version.
    """

    torch: str
    bitsandbytes: str
    python: str | None
    env: Mapping[str, str]
    packages: Mapping[str, str]
    profile: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The answer of `check`."""

    stack: Stack
    judgement: Judgement
    target: Target
    revision: str

    def to_dict(self) -> dict[str, Any]:
        """The envelope's ``data``."""
        torch, wheel = self.stack.torch, self.stack.bitsandbytes
        return {
            "works": self.judgement.works,
            "library": self.judgement.library,
            "gpus": [coverage_to_dict(coverage) for coverage in self.judgement.coverage],
            "findings": [finding_to_dict(finding) for finding in self.judgement.findings],
            "torch": {"version": torch.version, "build": torch.build},
            "bitsandbytes": wheel.version if wheel else None,
            "python": self.stack.python,
            "profile": self.stack.profile,
            "target": self.target.name,
            "matrix": self.revision,
        }


def check(asked: Combination, target: Target, matrix: Matrix) -> Checked:
    """What the judge says of a combination on a machine; what the matrix does not hold stays undecided.

    Raises:
        UsageError: a version or the profile cannot be read.
    """
    from bnbenv.judge.judge import judge

    torch = torch_build(asked.torch, target, matrix)
    stack = Stack(
        python=asked.python or _python(torch, target),
        torch=torch,
        bitsandbytes=wheel(asked.bitsandbytes, target, matrix),
        profile=asked.profile,
        packages=dict(asked.packages),
        env=dict(asked.env),
    )
    return Checked(
        stack=stack, judgement=judge(stack, target, matrix), target=target, revision=matrix.revision
    )


def torch_build(text: str, target: Target, matrix: Matrix) -> TorchBuild:
    """The build that a text names: a row of the matrix, or one made of the text alone.

    Raises:
        UsageError: the text is no version.
    """
    release, _, build = text.strip().partition("+")
    if not _VERSION.fullmatch(release):
        raise UsageError(
            f"`{text}` is no version of torch",
            hint="bnbenv check --torch 2.9.1 --bitsandbytes 0.50.2",
            code="bad-request",
        )
    rows = [
        row for row in matrix.torch if (row.version, row.os, row.arch) == (release, target.os, target.arch)
    ]
    if build:
        rows = [row for row in rows if row.build == build]
    # Without a build the one that `pip install torch` brings is meant.
    rows.sort(key=lambda row: row.index != "pypi")
    return rows[0] if rows else _unknown_build(release, build, target)


def _unknown_build(release: str, build: str, target: Target) -> TorchBuild:
    cuda = rocm = None
    if re.fullmatch(r"cu\d{2,3}", build):
        cuda = CudaVersion.parse(build)
    elif build.startswith("rocm"):
        try:
            rocm = str(RocmVersion.parse(build))
        except ValueError as error:
            raise UsageError(f"`+{build}` is no build of torch: {error}", code="bad-request") from error
    elif build not in {"", "cpu", "xpu", "mps"}:
        raise UsageError(
            f"`+{build}` is no build of torch",
            hint="such as `+cpu`, or a CUDA or ROCm tag",
            code="bad-request",
        )
    return TorchBuild(
        version=release,
        build=build or "unknown",
        index="unknown",
        local=build or None,
        os=target.os,
        arch=target.arch,
        pythons=(),
        provenance=_UNKNOWN,
        cuda=cuda,
        rocm=rocm,
    )


def wheel(text: str, target: Target, matrix: Matrix) -> BitsandbytesWheel:
    """The wheel of a release for a platform, or an empty one where the matrix holds none.

    Raises:
        UsageError: the text is no version.
    """
    release = text.strip()
    if not _VERSION.fullmatch(release):
        raise UsageError(
            f"`{text}` is no version of bitsandbytes",
            hint="bnbenv check --torch 2.9.1 --bitsandbytes 0.50.2",
            code="bad-request",
        )
    for row in matrix.bitsandbytes:
        if (row.version, row.os, row.arch) == (release, target.os, target.arch):
            return row
    return BitsandbytesWheel(
        version=release,
        wheel="",
        sha256="",
        size=0,
        platform="",
        os=target.os,
        arch=target.arch,
        uploaded="",
        requires_python=None,
        requires_torch=None,
        requires=(),
        libraries=(),
        provenance=_UNKNOWN,
    )


def _python(torch: TorchBuild, target: Target) -> str:
    """The newest Python that both sides have, else the newest of either."""
    both = [python for python in target.pythons if python in torch.pythons]
    known = both or list(torch.pythons) or list(target.pythons) or ["3.12"]
    return max(known, key=lambda text: tuple(int(part) for part in text.split(".")))
