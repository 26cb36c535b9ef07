"""Find environments: by name, by path, or the one that a command means when none is named."""

from __future__ import annotations

import os
import re
import shlex
import sys
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, replace
from bnbenv.env import generation as generations
from bnbenv.env import switch
from bnbenv.env.layout import FACTS, Layout, checked_name, leads_to_generations
from bnbenv.errors import EnvironmentProblem, UsageError
from bnbenv.home import expanded
from bnbenv.tool import tooling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from bnbenv.env.installed import EnvironmentKind, Installed
    from bnbenv.env.layout import Place
    from bnbenv.env.locking import Hold
    from bnbenv.workflows.voice import Voice

_PYTHON = re.compile(r"pythonw?[\d.]*t?(\.exe)?", re.IGNORECASE)

OWN = "the Python that bnbenv is installed in"

# The locks that this command holds, by their files; the mapping itself is never changed.
_HELD: ContextVar[Mapping[Path, Hold]] = ContextVar("_HELD", default={})  # noqa: B039


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """The environment that a command works on.

    Attributes:
        directory: the venv, conda environment or prefix; of one of bnbenv's own, the generation's real path.
        kind: who made it.
        why: how it was chosen, for the user to read: the argument, ``VIRTUAL_ENV``, ….
        place: where one of bnbenv's own stands; ``None`` for any other.
        interpreter: the one that the user named; ``None`` where a directory or a name was given.
    """

    directory: Path
    kind: EnvironmentKind
    why: str
    place: Place | None = None
    interpreter: Path | None = None

    def __str__(self) -> str:
        """Where it is, what it is and how it was chosen, as every command tells it first."""
        return f"{self.directory} ({self.kind}), from {self.why}"

    @property
    def name(self) -> str:
        """How the user calls it on the command line."""
        return self.place.name if self.place is not None else str(self.interpreter or self.directory)

    @property
    def python(self) -> Path:
        """Its interpreter."""
        if self.interpreter is not None:
            return self.interpreter
        if self.kind == "system" and not os.path.lexists(self.directory / "bin" / "python"):
            versioned = self.directory / "bin" / "python3"  # Debian has no `python`
            if versioned.exists():
                return versioned
        conda = self.directory / ("python.exe" if sys.platform == "win32" else "bin/python")
        venv = generations.python_in(self.directory)
        return venv if venv.exists() or not conda.exists() else conda

    @property
    def generation(self) -> generations.Generation:
        """The generation of one of bnbenv's own; of any other directory, one without a lock."""
        found = generations.parse(self.directory) if self.kind == "bnbenv" else None
        return found or generations.Generation(directory=self.directory, digest="", number=0)

    def read_installed(self) -> Installed:
        """What is installed for its interpreter: several Pythons may share a prefix.

        Raises:
            EnvironmentProblem: code ``no-environment``; there is none any more.
        """
        from bnbenv.env.installed import read_installed

        return read_installed(self.directory, interpreter=self.interpreter)


def place_of(text: str, layout: Layout) -> Place:
    """The place that a name or a path given by the user means; it need not exist.

    Raises:
        UsageError: the name or path cannot be used.
    """
    return _at(text, layout) if _looks_like_path(text) else layout.named(text)


def _at(text: str, layout: Layout) -> Place:
    directory = expanded(text, "the environment")
    return layout.at(directory, generations=not _is_plain(directory))


def _is_plain(directory: Path) -> bool:
    # By os.path: what may not be entered, such as another user's directory, is none.
    return os.path.isfile(directory / FACTS / "PLAIN")  # noqa: PTH113


def existing(text: str, layout: Layout) -> Place:
    """The same, for a command that needs it to exist; a name may also be that of a directory here.

    Raises:
        EnvironmentProblem: there is nothing, and the nearest one is named; or what stands there is not ours.
    """
    place = place_of(text, layout)
    if is_ours(place):
        return place
    if (here := _ours_here(text, layout)) is not None:
        return here
    if place.exists:
        raise _foreign(place)
    raise missing(text, layout)


def is_ours(place: Place) -> bool:
    """Whether bnbenv made the environment at a place: what is a user's own must never go.

    It has a finished generation, or had one: its link or its note of the current one leads there. One whose
    first build was never finished is none.
    """
    if place.form == "plain":
        return _is_plain(place.link)
    if os.path.islink(place.link) and leads_to_generations(place):  # noqa: PTH114
        return True
    noted = os.path.isfile(place.current_file)  # noqa: PTH113 - as in `_is_plain`
    return noted or bool(generations.list_generations(place))


def _ours_here(text: str, layout: Layout) -> Place | None:
    """The environment of bnbenv's that a path leads to, though it may read like a name."""
    with suppress(UsageError):
        place = _at(text, layout)
        if is_ours(place):
            return place
    return None


def _foreign(place: Place) -> EnvironmentProblem:
    if place.link.is_symlink():
        what = f"a link to `{place.link.readlink()}`"
    else:
        what = "a directory" if place.link.is_dir() else "a file"
    return EnvironmentProblem(
        f"`{place.link}` is no environment that bnbenv made, but {what}; it is left alone", hint="bnbenv list"
    )


def missing(text: str, layout: Layout) -> EnvironmentProblem:
    """There is no such environment; the nearest name, and how to make it.

    Raises:
        ExternalError: see `refuse_unreadable`.
    """
    from difflib import get_close_matches

    if not _looks_like_path(text):
        refuse_unreadable(layout)
    if (begun := _begun(text, layout)) is not None:
        return begun
    names = [place.name for place in all_places(layout) if place.form == "home"]
    near = get_close_matches(text, names, n=1)
    if near:
        return EnvironmentProblem(
            f"there is no environment `{text}`; did you mean `{near[0]}`?", hint="bnbenv list"
        )
    if (here := _ours_here(text, layout)) is not None and here.exists:
        try:
            switch.require_current(here)
        except EnvironmentProblem as broken:
            return broken
    if os.path.islink(text):  # noqa: PTH114 - it may lead in a circle
        return EnvironmentProblem(
            f"`{text}` is a link to `{os.readlink(text)}`, and no environment is there",  # noqa: PTH115 - as it is written
            hint="remove the link, or put back what it led to",
        )
    where = [] if _is_profile(text) else ["--path" if _looks_like_path(text) else "--name"]
    make = shlex.join(["bnbenv", "create", *where, text])
    return EnvironmentProblem(
        f"there is no environment `{text}`", hint=f"{make}, or bnbenv list" if names else make
    )


def _is_profile(text: str) -> bool:
    """Whether `create` knows a profile of that name: one of bnbenv's, or one of the user's here."""
    from bnbenv.matrix.load import load
    from bnbenv.workflows.profiles import read_definitions

    own: Iterable[str] = ()
    with suppress(UsageError):  # a file that cannot be read defines nothing here
        own = read_definitions(Path.cwd())[1]
    return text in own or any(row.name == text for row in load("profiles").profiles)


def _begun(text: str, layout: Layout) -> EnvironmentProblem | None:
    """The first build of it is under way, or ended before its time."""
    from bnbenv.env.locking import describe_holder

    try:
        place = place_of(text, layout)
    except UsageError:
        return None
    if generations.debris(place):
        builder = describe_holder(place.lock)
        again = f"bnbenv {'sync LOCKDIR' if '`bnbenv sync ' in builder else 'create PROFILE'} {place.options}"
        return EnvironmentProblem(
            f"`{text}` was begun by {builder}, and never finished: nothing of it can be used",
            hint=f"{again} makes it anew; bnbenv clean takes away what was begun",
        )
    if place.form == "home" and place.name in layout.names():
        return EnvironmentProblem(
            f"`{text}` is being built for the first time by {describe_holder(place.lock)}",
            hint="wait for it to finish",
        )
    return None


def all_places(layout: Layout) -> tuple[Place, ...]:
    """Every environment that bnbenv knows of: named ones first. What others keep there is none."""
    named = (layout.named(name) for name in layout.names())
    return (
        *(place for place in named if is_ours(place)),
        *(place for place in layout.known_paths() if is_ours(place)),
    )


def refuse_unreadable(layout: Layout) -> None:
    """Say that environments may stand where this user may not look, before it is said that there are none.

    Raises:
        ExternalError: code ``permission``.
    """
    from bnbenv.env.durable import told

    for directory in (layout.envs, layout.generations):
        with told(directory, "read"), suppress(FileNotFoundError, NotADirectoryError):
            os.scandir(directory).close()


def locate(
    argument: str | None,
    environ: Mapping[str, str],
    cwd: Path,
    *,
    changing: str | None = None,
    only_ours: bool = False,
) -> Located:
    """The environment that a command means.

    In this order: the argument (a name, a directory, or an interpreter), ``VIRTUAL_ENV``, ``CONDA_PREFIX``,
    ``./.venv``, the only environment of bnbenv's own where the Python that bnbenv is installed in has neither
    torch nor bitsandbytes, that Python. conda's `base`, which it activates in every shell, is
    nobody's choice, and stands behind ``./.venv``, as for uv.

    Args:
        changing: of a command that changes the environment, how it is typed up to the argument: it means
            bnbenv's own Python only where that is named.
        only_ours: it changes environments of bnbenv's own alone.

    Raises:
        EnvironmentProblem: what the argument names is not there, or is no Python environment; or none is
            meant.
    """
    layout = Layout.find(environ)
    if argument is not None:
        return _argument(argument, layout)
    active = {name: environ.get(name, "") for name in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    places = [(Path(value), f"{name}={value}") for name, value in active.items() if value]
    by_itself = environ.get("CONDA_DEFAULT_ENV") in {"base", "root"} and bool(active["CONDA_PREFIX"])
    places.insert(len(places) - by_itself, (cwd / ".venv", "./.venv"))
    for directory, why in places:
        if directory.is_dir():
            return _directory(directory, why, layout)
    if changing is not None:
        raise _unnamed(changing, layout, only_ours=only_ours)
    ours = all_places(layout)
    if len(ours) == 1 and not _has_stack(sys.path):
        return replace(_argument(ours[0].name, layout), why="the only environment that there is")
    return _directory(Path(sys.prefix), OWN, layout)


def _has_stack(path: Iterable[str]) -> bool:
    """Whether torch or bitsandbytes is on a search path."""
    return any(os.path.isdir(os.path.join(site, name)) for site in path for name in ("torch", "bitsandbytes"))  # noqa: PTH112, PTH118


def refuse_managed(located: Located) -> None:
    """Leave a Python that the system's package manager owns (PEP 668) to it.

    Raises:
        EnvironmentProblem: code ``permission``.
    """
    from bnbenv.env.installed import is_externally_managed

    if is_externally_managed(located.directory):
        raise EnvironmentProblem(
            f"`{located.directory}` belongs to the system's package manager (PEP 668): it was not changed",
            hint="bnbenv create (an environment of its own)",
            code="permission",
        )


def _unnamed(changing: str, layout: Layout, *, only_ours: bool) -> EnvironmentProblem:
    names = [place.name for place in all_places(layout) if place.form == "home"]
    if names:
        hint = f"{changing} {shlex.quote(names[0])}, or bnbenv list"
    else:
        apart = only_ours or tooling().alone
        hint = "bnbenv create qlora" if apart else f"{changing} {shlex.quote(sys.prefix)}"
    return EnvironmentProblem(
        "no environment is named, none is active, and there is no ./.venv; "
        f"bnbenv's own Python, `{sys.prefix}`, is not changed unless it is named",
        hint=hint,
    )


def _argument(text: str, layout: Layout) -> Located:
    if not _looks_like_path(text):
        place = layout.named(text)
        if is_ours(place):
            current = switch.require_current(place)
            why = f"the environment `{text}`"
            return Located(directory=current.directory, kind="bnbenv", why=why, place=place)
        if not Path(text).exists():
            raise _foreign(place) if place.exists else missing(text, layout)
    path = expanded(text, "the environment").absolute()
    if path.is_dir():
        return _directory(path, f"`{text}`", layout)
    if path.is_file():
        found = _of_interpreter(path, f"the interpreter `{text}`", layout)
        named = found.kind != "bnbenv" and _PYTHON.fullmatch(path.name)
        return replace(found, interpreter=path) if named else found
    raise missing(text, layout)


def _of_interpreter(path: Path, why: str, layout: Layout) -> Located:
    """What an interpreter is of; where nothing is around it, it may be a link from somewhere on PATH."""
    # Its prefix is two levels up, one on Windows' conda.
    prefix = path.parent.parent if path.parent.name in {"bin", "Scripts"} else path.parent
    try:
        return _directory(prefix, why, layout)
    except EnvironmentProblem:
        real = Path(os.path.realpath(path))
        if real == path:
            if _is_script(path):
                raise _shim(path) from None
            raise
        return _of_interpreter(real, why, layout)


def _is_script(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as stream:
        return stream.read(2) == b"#!"
    return False


def _shim(path: Path) -> EnvironmentProblem:
    """A version manager's, such as pyenv's: only running it tells which Python it starts."""
    tells = shlex.join([str(path), "-c", "import sys; print(sys.prefix)"])
    return EnvironmentProblem(
        f"`{path}` is a script that starts a Python of another place",
        hint=f"name the directory that this prints: {tells}",
    )


def _directory(path: Path, why: str, layout: Layout) -> Located:
    from bnbenv.env.installed import kind_of

    real = Path(os.path.realpath(path))
    for place in all_places(layout):
        if real in _finished(place):
            return Located(directory=real, kind="bnbenv", why=why, place=place)
    if _is_plain(real):
        switch.require_current(layout.at(real, generations=False))
    # A generation that its home has forgotten, such as in an image, is told by its own state.
    kind = kind_of(path)
    if kind != "bnbenv":
        return Located(directory=path, kind=kind, why=why)
    plain = (place for place in all_places(layout) if place.form == "plain" and place.link == real)
    return Located(directory=real, kind=kind, why=why, place=next(plain, None))


def _finished(place: Place) -> set[Path]:
    """The generations of a place by their real paths; none where another user keeps one to themselves."""
    with suppress(PermissionError):
        return {Path(os.path.realpath(found.directory)) for found in generations.list_generations(place)}
    return set()


@contextmanager
def locked(place: Place, command: str, report: Callable[[str], None]) -> Iterator[None]:
    """Hold the environment's lock, so that nobody else changes it."""
    from bnbenv.env.durable import told
    from bnbenv.env.locking import hold

    with told(place.lock.parent, "create"):
        place.lock.parent.mkdir(parents=True, exist_ok=True)
    with hold(place.lock, report, command=command):
        yield


@contextmanager
def holding(located: Located, command: str, voice: Voice, environ: Mapping[str, str]) -> Iterator[Hold]:
    """Hold the lock of any environment; of one that is not bnbenv's, it stands in bnbenv's home.

    What is called by who holds it, such as the self-test of a repair, holds it with the caller.
    """
    from bnbenv.env.durable import told
    from bnbenv.env.locking import hold

    place = located.place
    path = Layout.find(environ).lock_of(located.directory) if place is None else place.lock
    if (held := _HELD.get().get(path)) is not None:
        yield held
        return
    with told(path.parent, "create"):
        path.parent.mkdir(parents=True, exist_ok=True)
    with hold(path, voice.progress, command=f"bnbenv {command} {located.directory}") as held:
        before = _HELD.set({**_HELD.get(), path: held})
        try:
            yield held
        finally:
            _HELD.reset(before)


def heal(located: Located, voice: Voice) -> None:
    """Put back what an interrupted repair in place left half done. The environment's lock must be held."""
    from bnbenv.env import transaction

    if transaction.heal(located.directory):
        voice.progress("an earlier repair was interrupted here: everything was put back first")


def heal_interrupted(located: Located, voice: Voice, environ: Mapping[str, str]) -> None:
    """The same, for a command that does not hold the lock; a repair that is under way is waited for."""
    from bnbenv.env import transaction

    if transaction.is_half_done(located.directory):
        with holding(located, "repair", voice, environ):
            heal(located, voice)


def startable(place: Place, voice: Voice, environ: Mapping[str, str]) -> generations.Generation:
    """The current generation, to start programs in: no interrupted repair has left it half done.

    Raises:
        EnvironmentProblem: see `switch.require_current` and `transaction.heal`.
        ExternalError: what is half done is another user's to put back.
    """
    found = switch.require_current(place)
    located = Located(directory=found.directory, kind="bnbenv", why=f"`{place.name}`", place=place)
    heal_interrupted(located, voice, environ)
    return found


def _looks_like_path(text: str) -> bool:
    """Whether no name is meant; what cannot be one is a path where something stands there."""
    if text.startswith((".", "~")) or "/" in text or "\\" in text or Path(text).is_absolute():
        return True
    try:
        checked_name(text)
    except UsageError:
        return os.path.lexists(text)
    return False
