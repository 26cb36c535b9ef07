"""What the user asked of `create`: the part that is kept with the environment, and the part that is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bnbenv.dataclass import asdict, dataclass, field, fields
from bnbenv.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.lockfile.index import TeamLock
    from bnbenv.machine.target import Target

LinkMode = Literal["auto", "clone", "hardlink", "copy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an environment shall be; stored with it, so that `repair` can solve again.

    Attributes:
        profile: a name of ``compat/profiles.toml``.
        torch, bitsandbytes: PEP 440 specifiers; ``None`` leaves the choice to the judge.
        cuda: a CUDA version such as ``12.6``.
        python: a minor version such as ``3.12``.
        packages: requirements given by ``--with``.
        requirements: lines of the files given by ``--requirements``, includes spelled out, paths absolute.
        constraints: lines of the constraint files that they name.
        exclude_newer: a date or timestamp, handed to uv.
        cpu: a CPU build was asked for, whatever the machine has.
        base: the interpreter whose torch is used.
        without_index: indexes or families that must not be used.
        prefer: ``verified`` for stacks that were verified on such a machine before newer ones.
        anyway: packages let in although they are known to break others.
        definition: the profile, where it is the user's own.
    """

    profile: str
    torch: str | None = None
    bitsandbytes: str | None = None
    cuda: str | None = None
    python: str | None = None
    packages: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    exclude_newer: str | None = None
    cpu: bool = False
    base: str | None = None
    without_index: tuple[str, ...] = ()
    prefer: Literal["verified"] | None = None
    anyway: tuple[str, ...] = ()
    definition: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON object with only what was asked."""
        return {key: value for key, value in asdict(self).items() if value not in (None, (), False)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Wanted:
        """Read what `to_dict` wrote; unknown keys are ignored."""
        known = {item.name for item in fields(cls)}
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in data.items()
            if key in known
        }
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """One call of `create`.

    Attributes:
        name: the environment's name; with `path`, how it is called in `list`.
        path: where the link shall stand instead of under bnbenv's home.
        generations: false for one plain directory.
        target: another machine; ``None`` for this one.
        anyway: let packages in that are known to break the others; they are recorded in `wanted`.
        mirrors: index name or family → address, from bnbenv's configuration.
    """

    wanted: Wanted
    name: str
    path: Path | None = None
    generations: bool = True
    target: Target | None = None
    link_mode: LinkMode = "auto"
    offline: bool = False
    dry_run: bool = False
    anyway: bool = False
    mirrors: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = field(default_factory=Path.cwd)


def request_of(index: TeamLock) -> dict[str, Any]:
    """What a lock was asked for.

    Raises:
        DataError: code ``lock-invalid``.
    """
    request = dict(index.request)
    texts = ("profile", "torch", "bitsandbytes", "cuda", "python", "exclude_newer")
    lists = ("packages", "requirements", "constraints", "without_index")
    sound = all(isinstance(request[key], str) for key in texts if key in request)
    sound = sound and all(
        isinstance(request[key], list) and all(isinstance(line, str) for line in request[key])
        for key in lists
        if key in request
    )
    if not sound or "profile" not in request or not isinstance(request.get("cpu", False), bool):
        from bnbenv.lockfile.commands import lock_command

        raise DataError(
            f"`{index.origin}`: its request cannot be read",
            hint=lock_command(Path(index.origin).parent, "PROFILE"),
            code="lock-invalid",
        )
    return {key: value for key, value in request.items() if key in (*texts, *lists, "cpu")}
