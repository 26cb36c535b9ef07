"""Generations: the directories an environment is built in, finished by a READY mark that is written last."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass
from bnbenv.env import durable, lease
from bnbenv.env.layout import FACTS, GENERATION_NAME, check_windows_length, leads_to_generations, prepare
from bnbenv.env.processes import ProcessIdentity, is_alive, start_of, this_process
from bnbenv.errors import EnvironmentProblem, ExternalError
from bnbenv.renames import patiently

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bnbenv.env.layout import Place

_ASIDE = ".gone-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One directory with a venv in it, in progress or ready.

    Attributes:
        directory: its absolute path.
        digest: the first twelve hex digits of its lock; ``""`` for a plain directory.
        number: counts the builds of one lock, from 1; 0 for a plain directory.
    """

    directory: Path
    digest: str
    number: int

    @property
    def facts(self) -> Path:
        """Our own files in it."""
        return self.directory / FACTS

    @property
    def state_file(self) -> Path:
        """What was asked for and what was decided."""
        return self.facts / "state.json"

    @property
    def lock_file(self) -> Path:
        """The lock it was built from (PEP 751)."""
        return self.facts / "lock.toml"

    @property
    def verdict_file(self) -> Path:
        """What the self-test said last."""
        return self.facts / "verdict.json"

    @property
    def ready_file(self) -> Path:
        """The mark that is written last."""
        return self.facts / "READY"

    @property
    def ready(self) -> bool:
        """Whether it was finished."""
        return self.ready_file.is_file()

    @property
    def sequence(self) -> int:
        """Counts the finished generations of a place; 0 while in progress. Later is greater."""
        try:
            value = json.loads(self.ready_file.read_bytes())["sequence"]
        except (OSError, ValueError, KeyError, TypeError):
            # An older or damaged mark still marks: order by when it was written, before every numbered one.
            return 0
        return value if type(value) is int else 0

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return python_in(self.directory)


def python_in(venv: Path) -> Path:
    """The interpreter of a venv."""
    return venv / "Scripts" / "python.exe" if sys.platform == "win32" else venv / "bin" / "python"


def plain(place: Place) -> Generation:
    """The one directory of a place without generations."""
    return Generation(directory=place.link, digest="", number=0)


def directory_of(place: Place) -> Path:
    """The real path of the directory of a place's generations: the home may stand behind a link."""
    return Path(os.path.realpath(place.generations))


def parse(directory: Path) -> Generation | None:
    """The generation that the directory's name tells, or ``None``."""
    match = re.fullmatch(GENERATION_NAME, directory.name)
    return Generation(directory=directory, digest=match[1], number=int(match[2])) if match else None


def is_generation(directory: Path) -> bool:
    """Whether it has the name of one and is one: the first that a build makes in it is `.bnbenv`."""
    # By os.path: what may not be entered, such as another user's directory, is none.
    if parse(directory) is None or not os.path.isdir(directory) or os.path.islink(directory):  # noqa: PTH112, PTH114
        return False
    inside = durable.names_in(directory)
    return not inside or FACTS in inside


def begin(place: Place, digest: str) -> Generation:
    """Make the directory of a new generation, with this process noted as its builder.

    The environment's lock must be held. For a plain place it is the directory itself, which loses its READY.
    The directory is not empty (`.bnbenv` stands in it): `uv venv` wants `--allow-existing`.

    Args:
        place: where.
        digest: hex digits of the lock's digest, at least twelve.

    Raises:
        UsageError: code ``path-occupied``; ``bad-name`` where Windows could not open files so deep.
        ExternalError: codes ``permission``, ``disk-full``.
    """
    prepare(place)
    if place.form == "plain":
        made = plain(place)
        _check_length(made)
        with durable.told(made.directory, "change"):
            made.ready_file.unlink(missing_ok=True)
    else:
        short = digest[:12]
        if not re.fullmatch(r"[0-9a-f]{12}", short):
            raise AssertionError(f"not a lock digest: {digest!r}")
        named = (parse(entry) for entry in _entries(directory_of(place)))  # a user's own as well
        taken = [found.number for found in named if found is not None and found.digest == short]
        number = max(taken, default=0) + 1
        made = Generation(directory=directory_of(place) / f"{short}-{number}", digest=short, number=number)
        _check_length(made)
        with durable.told(made.directory, "create"):
            made.facts.mkdir(parents=True)
    builder = json.dumps(this_process().as_dict()) + "\n"
    # A plain directory has just lost its READY: not even a power cut may bring that back.
    durable.write_whole(made.facts / "BUILDING", builder.encode(), flush=place.form == "plain")
    return made


def _check_length(made: Generation) -> None:
    if sys.platform == "win32":
        from bnbenv.env import windows

        if not windows.opens_long_paths():
            check_windows_length(str(made.directory / "Lib" / "site-packages"))


def mark_ready(place: Place, generation: Generation) -> None:
    """Finish `generation`: from here on it is listed and can be switched to.

    Everything else of ours in it must have reached the disk. Survives a kill at any moment; after a power cut
    the comparison with RECORD tells what the disk lost.

    Raises:
        ExternalError: codes ``permission``, ``disk-full``.
    """
    sequence = 1 + max((found.sequence for found in list_generations(place)), default=0)
    durable.write_whole(
        generation.ready_file, (json.dumps({"schema": 1, "sequence": sequence}) + "\n").encode()
    )
    with durable.told(generation.directory, "change"):
        (generation.facts / "BUILDING").unlink(missing_ok=True)


def list_generations(place: Place) -> tuple[Generation, ...]:
    """The finished generations, oldest first. What has no READY is not there."""
    if place.form == "plain":
        only = plain(place)
        return (only,) if only.ready else ()
    return tuple(
        sorted(
            (found for found in _all(place) if found.ready),
            key=lambda found: (found.sequence, _written(found)),
        )
    )


def debris(place: Place) -> tuple[Generation, ...]:
    """What was never finished and is built by nobody: the directories that `sweep` clears."""
    if place.form == "plain":
        return ()
    return tuple(found for found in _all(place) if not found.ready and not _is_held(found))


def sweep(place: Place, *, report: Callable[[str], None] = lambda _: None) -> tuple[Path, ...]:
    """Clear what dead processes left behind; the environment's lock must be held.

    Debris is a directory without READY, whose builder is dead and in which no process works. It is first
    renamed aside, so that whatever happens to the deletion, nobody takes it for a generation. A plain
    directory is never deleted: the next build finishes it.

    Returns:
        The directories that were cleared, by their first names.
    """
    cleared: list[Path] = []
    if place.form == "plain":
        _sweep_temporaries(place.link / FACTS)
        return ()
    _sweep_temporaries(place.link.parent, place.link.name)
    _sweep_temporaries(place.generations)
    for found in _all(place):
        if found.ready:
            _sweep_temporaries(found.facts)
            with contextlib.suppress(OSError):
                (found.facts / "BUILDING").unlink()
            continue
        if _is_held(found):
            report(f"`{found.directory.name}` is still being built by another process; left alone")
            continue
        try:
            if _delete(found.directory):
                cleared.append(found.directory)
        except ExternalError as problem:  # another user's is that user's to clear
            if problem.code != "permission":
                raise
            report(f"`{found.directory.name}` is left alone: {problem.message}")
    for aside in _entries(place.generations):
        if aside.name.startswith(_ASIDE):
            _remove_tree(aside)
    return tuple(cleared)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What `prune` did.

    Attributes:
        removed: directories that are gone.
        in_use: old generations that were kept because processes use them, with these processes.
        not_ours: old generations that are another user's to remove.
    """

    removed: tuple[Path, ...] = ()
    in_use: tuple[tuple[Path, tuple[int, ...]], ...] = ()
    not_ours: tuple[Path, ...] = ()


def prune(place: Place, *, current: Generation | None, keep: int = 1, dry_run: bool = False) -> Pruned:
    """Remove finished generations but the current one, the `keep` newest others, those in use or not ours.

    The environment's lock must be held. With `dry_run` nothing changes and the answer is the same.
    """
    if place.form == "plain":
        return Pruned()
    others = [
        found for found in list_generations(place) if current is None or found.directory != current.directory
    ]
    removed, in_use, not_ours = [], [], []
    for found in others[: len(others) - keep] if keep else others:
        if not durable.may_write(found.directory):
            not_ours.append(found.directory)
        elif users := lease.users(found.directory):
            in_use.append((found.directory, users))
        elif dry_run or _delete(found.directory):
            removed.append(found.directory)
    return Pruned(removed=tuple(removed), in_use=tuple(in_use), not_ours=tuple(not_ours))


def discard(generation: Generation) -> None:
    """Delete one generation, for good. A plain directory stays: it is the user's place, only not READY."""
    if generation.digest:
        _delete(generation.directory)


def refuse_others(place: Place) -> None:
    """Stop before anything of an environment is deleted where something of it is another user's.

    Raises:
        ExternalError: code ``permission``.
    """
    if place.form == "plain":
        _refuse_undeletable(place.link)
        return
    _refuse_undeletable(place.generations)
    for found in _all(place):
        _refuse_undeletable(found.directory)


def remove(place: Place) -> None:
    """Delete the environment: link first, then everything that bnbenv made for it. The lock must be held.

    What a user put in the place of the link, or among the generations, stays.

    Raises:
        EnvironmentProblem: a plain directory that bnbenv did not make.
        ExternalError: code ``permission``; nothing was deleted where a generation is another user's.
    """
    refuse_others(place)
    if place.form == "plain":
        if not (place.link / FACTS / "PLAIN").is_file():
            raise EnvironmentProblem(f"`{place.link}` was not made by bnbenv; it is left alone")
        with durable.told(place.link, "remove"):
            _remove_plain(place)
            _forget_lock(place)
        return
    with durable.told(place.link, "remove"):
        if place.link.is_symlink() and leads_to_generations(place):
            place.link.unlink()
        elif place.current_file.is_file() and place.exists and leads_to_generations(place):
            place.link.rmdir()  # a junction: removes the link alone
    with durable.told(place.generations, "remove"):
        for entry in _entries(place.generations):
            if is_generation(entry):
                _delete(entry)
            elif entry.name.startswith(_ASIDE):
                _remove_tree(entry)
        for name in ("current.json", ".gitignore"):
            (place.generations / name).unlink(missing_ok=True)
        # Last, and while still locked: who waits for the lock sees that its file is gone and starts anew.
        _forget_lock(place)
        with contextlib.suppress(OSError):
            place.generations.rmdir()


def _remove_plain(place: Place) -> None:
    """Delete a plain directory, its mark of being whole first and that of being bnbenv's last.

    What a kill leaves is so an environment that was never finished, to be removed or built anew.
    """
    facts = place.link / FACTS
    (facts / "READY").unlink(missing_ok=True)
    inside = [entry for entry in _entries(place.link) if entry != facts]
    for entry in (*inside, *(entry for entry in _entries(facts) if entry.name != "PLAIN")):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    shutil.rmtree(place.link)


def _forget_lock(place: Place) -> None:
    # Windows deletes no file that is open, as a lock is that is held: there it stays, for the next to hold.
    with contextlib.suppress(PermissionError):
        place.lock.unlink(missing_ok=True)


def _all(place: Place) -> list[Generation]:
    found = (parse(entry) for entry in _entries(directory_of(place)) if is_generation(entry))
    return sorted(
        (generation for generation in found if generation is not None),
        key=lambda generation: (generation.digest, generation.number),
    )


def _entries(directory: Path) -> Iterable[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return ()


def _written(generation: Generation) -> int:
    try:
        return generation.ready_file.stat().st_mtime_ns
    except OSError:
        return 0


def _is_held(generation: Generation) -> bool:
    """Whether a living process builds in `generation`. Unreadable notes are of the dead."""
    note: Any = None
    with contextlib.suppress(OSError, ValueError):
        note = json.loads((generation.facts / "BUILDING").read_bytes())
    if isinstance(note, dict):
        with contextlib.suppress(ValueError):
            builder = ProcessIdentity.from_dict(note)
            alive = is_alive(builder)
            if alive:
                return builder.pid != os.getpid()
            if alive is False:
                # Its children that write inherited the lock, which is ours now: they are gone too. What
                # may still work there (a self-test) only reads what nobody will want.
                return False
    return any(pid != os.getpid() for pid in lease.users(generation.directory))


def _refuse_undeletable(directory: Path) -> None:
    """Stop before a directory is put aside whose files would stay there, missed by nobody."""
    if os.path.isdir(directory) and not durable.may_write(directory):  # noqa: PTH112 - one may not be entered
        raise durable.explained(PermissionError(errno.EACCES, ""), directory, "remove")


def _delete(directory: Path) -> bool:
    """Rename aside, then delete; whether at least the rename worked.

    Raises:
        ExternalError: code ``permission``.
    """
    _refuse_undeletable(directory)
    aside = directory.with_name(f"{_ASIDE}{os.urandom(6).hex()}")
    try:
        patiently(lambda: directory.rename(aside))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise durable.explained(error, directory, "remove") from error
    _remove_tree(aside)
    return True


def _remove_tree(directory: Path) -> None:
    # What cannot be deleted now (an open file on NFS or Windows) is tried again by the next sweep.
    shutil.rmtree(directory, ignore_errors=True)


def _sweep_temporaries(directory: Path, of: str | None = None) -> None:
    for path, maker in durable.temporaries_in(directory):
        if of is not None and not path.name.startswith(f".{of}."):
            continue
        if maker == os.getpid() or start_of(maker) is None:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
