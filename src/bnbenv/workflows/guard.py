"""What the guard of a new generation holds: read from its lock, the judge's choice and the matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnbenv.env.guard import Guard, KeptOut
    from bnbenv.env.layout import Place
    from bnbenv.install.uv import Uv
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.workflows.choose import Choice
    from bnbenv.workflows.request import CreateRequest


def guard_of(request: CreateRequest, choice: Choice, lock: Pylock, place: Place, uv: Uv) -> Guard:
    """Torch, what moves with it, bitsandbytes and pip exactly; the profile's others by their ranges."""
    from bnbenv.env.guard import Guard, moves_with_torch

    base = choice.base
    held = {name: version for name, version in lock.versions.items() if moves_with_torch(name)}
    if base is not None:
        held |= {name: base.packages[name] for name in sorted(base.held) if moves_with_torch(name)}
        if base.torch is not None:
            held["torch"] = base.torch.full_version
    locked = {package.name for package in lock.packages}
    index, extra = _torch_index(choice)
    return Guard(
        environment=place.name if place.form == "home" else str(place.link),
        profile=request.wanted.profile,
        held=held,
        ranges=_ranges(choice, lock),
        kept_out=_kept_out(choice, locked),
        index=index,
        extra_indexes=extra,
        uv=str(uv.path),
    )


def _ranges(choice: Choice, lock: Pylock) -> dict[str, str]:
    """The ranges that the profile's set was proven with, of the packages that the lock has.

    Not the stack's own: that of a repair holds exact versions.
    """
    from bnbenv.judge import lookup

    stack = choice.solution.stack
    locked = lock.versions
    versions = {**locked, "torch": stack.torch.version, "python": stack.python}
    group = lookup.fitting_set(lookup.profile(choice.matrix, stack.profile), versions)
    return {name: spec for name, spec in group.packages.items() if name in locked} if group else {}


def _kept_out(choice: Choice, locked: set[str]) -> dict[str, KeptOut]:
    """What the profile wants in an environment of its own, but for what the user let in all the same."""
    from bnbenv.env.guard import KeptOut
    from bnbenv.judge.hazards import barred

    return {
        entry.package: KeptOut(why=entry.mechanism, instead=entry.instead)
        for entry in barred(choice.solution.stack, choice.matrix)
        if entry.package not in locked
    }


def _torch_index(choice: Choice) -> tuple[str | None, tuple[str, ...] | None]:
    """The address of torch's own index where pip does not ask it anyway, and the user's extra ones.

    Addresses with credentials are written into no file of the environment.
    """
    if choice.base is not None:
        return None, ()
    index = choice.sources.find(choice.solution.stack.torch.index)
    if index.role != "explicit" or index.url is None or index.flat:
        return None, ()
    extra = choice.sources.with_role("extra")
    written = None if any(it.credential for it in extra) else tuple(it.url for it in extra if it.url)
    return index.url, written
