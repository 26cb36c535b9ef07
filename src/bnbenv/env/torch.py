"""The torch that an interpreter imports, told by its `version.py`; nothing of it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.units import CudaVersion, RocmVersion

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledTorch:
    """A torch where it is installed.

    Attributes:
        version: the public version; ``""`` where the file is damaged.
        local: the local part, such as ``cu126``, ``cpu`` or ``rocm6.4``.
        cuda, hip, xpu: as the file assigns them.
        directory: the package's.
        distribution: the version that the metadata tell; ``None`` where there are none, or nobody asked.
        metadata: its ``.dist-info``, where somebody asked.
        record_sha256: of its RECORD, where somebody asked; an NGC or source build, which no distribution
            owns, has none.
    """

    version: str
    local: str | None
    cuda: str | None
    hip: str | None
    xpu: str | None
    directory: Path
    distribution: str | None = None
    metadata: Path | None = None
    record_sha256: str | None = None

    @property
    def full_version(self) -> str:
        """With its local part, as ``torch.__version__`` tells it."""
        return f"{self.version}+{self.local}" if self.local else self.version

    @property
    def build(self) -> str:
        """``cu126``, ``cpu``, ``rocm6.4`` or ``xpu``; ``unknown`` where the file makes no sense."""
        try:
            if self.cuda:
                return CudaVersion.parse(self.cuda).tag
            if self.hip:
                return RocmVersion.parse(self.hip).tag
        except ValueError:
            return "unknown"
        return "xpu" if self.xpu else "cpu"


def installed_torch(
    version_py: str,
    directory: Path,
    *,
    distribution: str | None = None,
    metadata: Path | None = None,
    record_sha256: str | None = None,
) -> InstalledTorch:
    """The torch of a directory, by the text of its `version.py`; a text that is no Python tells nothing."""
    from bnbenv.version_py import assigned_texts

    try:
        facts = assigned_texts(version_py)
    except ValueError:
        facts = {}
    public, _, local = facts.get("__version__", "").partition("+")
    return InstalledTorch(
        version=public,
        local=local or None,
        cuda=facts.get("cuda"),
        hip=facts.get("hip"),
        xpu=facts.get("xpu"),
        directory=directory,
        distribution=distribution,
        metadata=metadata,
        record_sha256=record_sha256,
    )
