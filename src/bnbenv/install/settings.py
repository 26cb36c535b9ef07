"""One value of the user's configuration together with where it was read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.install.redact import redact

if TYPE_CHECKING:
    from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Setting:
    """A setting as found; the value may hold credentials, its `repr` does not.

    Attributes:
        key: ``index-url``, ``find-links``, …
        value: text, or what TOML made of it.
        origin: a file with its section, or a variable.
    """

    key: str
    value: Any
    origin: str

    @property
    def shown(self) -> str:
        """The value, fit to be printed."""
        return redact(str(self.value))

    def __repr__(self) -> str:
        return f"Setting({self.key}={self.shown!r}, origin={self.origin!r})"
