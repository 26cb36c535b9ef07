"""Where environments stand on disk, and which names and places may be used for them."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bnbenv.dataclass import dataclass
from bnbenv.env import durable
from bnbenv.errors import UsageError
from bnbenv.home import data_home
from bnbenv.sha256 import hexdigest
from bnbenv.typed_paths import to_type

if TYPE_CHECKING:
    from collections.abc import Mapping

Form = Literal["home", "path", "plain"]

FACTS = ".bnbenv"
LOCK = ".lock"
VARIANT = "{variant}"  # in a name or a path that `sync` fills in: only the machine knows what it gets
GENERATIONS_SUFFIX = ".generations"
_MARK = "# bnbenv keeps generations of the environment beside this directory; see `bnbenv list`\n"

_MAX_CHARACTERS = 64
_MAX_BYTES = 200
# Windows reserves these with any extension, and with superscript digits too.
_RESERVED = re.compile(r"(?i)^(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?$")

GENERATION_NAME = r"([0-9a-f]{12})-([1-9][0-9]{0,8})"  # digits of its lock's digest, and a count

WINDOWS_MAX_PATH = 260  # with the closing NUL, so 259 characters can be used
TORCH_LONGEST_MEMBER = 171  # below site-packages; measured in torch 2.13.0+cpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one environment stands.

    Attributes:
        name: how the user calls it: a name, or the path given with ``--path``.
        link: the path that users and editors see; for ``plain`` the directory itself.
        generations: the directory of the generations; for ``plain`` the parent of the directory.
        lock: the file that is locked by whoever changes the environment.
        form: ``home`` (a name), ``path`` (``--path``) or ``plain`` (``--path --no-generations``).
    """

    name: str
    link: Path
    generations: Path
    lock: Path
    form: Form

    @property
    def current_file(self) -> Path:
        """Which generation is current, where a link cannot be replaced atomically (Windows)."""
        return self.generations / "current.json"

    @property
    def options(self) -> str:
        """How `create` is told of it, to type."""
        import shlex

        if self.form == "home":
            return f"--name {shlex.quote(self.name)}"
        suffix = " --no-generations" if self.form == "plain" else ""
        return f"--path {to_type(self.link)}{suffix}"

    @property
    def exists(self) -> bool:
        """Whether something stands there, even a link that leads nowhere."""
        return os.path.lexists(self.link)


def checked_name(text: str) -> str:  # noqa: C901 - one plain question after another
    """`text` as an environment name, in Unicode normal form C.

    Letters, marks and digits of any script, ``.``, ``_`` and ``-``; begins with a letter, digit or ``_``;
    at most 64 characters and 200 bytes; no name that Windows reserves.

    Raises:
        UsageError: code ``bad-name``.
    """
    shown = text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"
    name = unicodedata.normalize("NFC", text)

    def refused(
        why: str, hint: str = "use letters, digits, `.`, `_` and `-`, such as `qlora-2`"
    ) -> UsageError:
        return UsageError(f"environment name {shown!r}: {why}", hint=hint, code="bad-name")

    if not name:
        raise refused("it is empty")
    if VARIANT in name:
        raise refused(
            f"only `sync`, and `doctor --lock`, read the lock that tells what stands for `{VARIANT}`",
            "bnbenv list, for the name that `sync` has given",
        )
    if "/" in name or "\\" in name or name in {".", ".."}:
        raise refused("it is a path, not a name", "to choose the place yourself: `--path DIR`")
    if len(name) > _MAX_CHARACTERS:
        raise refused(f"it is longer than {_MAX_CHARACTERS} characters", "choose a shorter name")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise refused("it is not valid text") from None
    if size > _MAX_BYTES:
        raise refused(f"it is longer than {_MAX_BYTES} bytes", "choose a shorter name")
    for character in name:
        if character not in "._-" and unicodedata.category(character)[0] not in "LMN":
            raise refused(f"the character {character!r} cannot be used")
    if name[0] != "_" and unicodedata.category(name[0])[0] not in "LN":
        raise refused("it must begin with a letter, a digit or `_`")
    if name.endswith("."):
        raise refused("it ends with a dot, which Windows drops")
    if _RESERVED.match(name):
        raise refused("Windows reserves it", "choose another name")
    return name


def check_windows_length(site_packages: str) -> None:
    """Refuse a place where Windows without long paths could not open a file of torch.

    Args:
        site_packages: the absolute path of site-packages, as Windows would spell it.

    Raises:
        UsageError: code ``bad-name``; says by how many characters.
    """
    excess = len(site_packages) + 1 + TORCH_LONGEST_MEMBER - (WINDOWS_MAX_PATH - 1)
    if excess > 0:
        raise UsageError(
            f"`{site_packages}` is {excess} characters too long: Windows paths end at "
            f"{WINDOWS_MAX_PATH - 1}, and torch's files need {TORCH_LONGEST_MEMBER} below it",
            hint="set `BNBENV_HOME` to a short directory such as `C:\\bnbenv`, or enable Windows' long paths",
            code="bad-name",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """bnbenv's home and what stands in it."""

    home: Path

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> Layout:
        """The home that ``BNBENV_HOME`` names, else the user's data directory.

        Raises:
            UsageError: ``BNBENV_HOME`` cannot be a directory.
        """
        if given := environ.get("BNBENV_HOME"):
            _checked_path(given)
        home = data_home(environ)
        # By os.path: a home that may not be entered is for those to tell who look into it.
        if os.path.exists(home) and not os.path.isdir(home):  # noqa: PTH110, PTH112
            raise UsageError(
                f"`{home}` is to be bnbenv's home, but it is not a directory", hint="set `BNBENV_HOME`"
            )
        return cls(home=home)

    @property
    def envs(self) -> Path:
        """The links, one a name."""
        return self.home / "envs"

    @property
    def generations(self) -> Path:
        """The generations, one directory a name."""
        return self.home / "generations"

    @property
    def paths(self) -> Path:
        """One small file for every environment made with ``--path``, so that `list` finds it."""
        return self.home / "paths"

    @property
    def runs(self) -> Path:
        """Logs of past runs."""
        return self.home / "runs"

    @property
    def reports(self) -> Path:
        """What is written for a maintainer when bnbenv itself fails."""
        return self.home / "reports"

    @property
    def locks(self) -> Path:
        """The locks of environments that have no generations."""
        return self.home / "locks"

    @property
    def rows(self) -> Path:
        """What this user's bnbenv has measured of releases: rows of the matrix."""
        return self.home / "matrix"

    @property
    def cache(self) -> Path:
        """What can be found out again: which indexes answered."""
        return self.home / "cache"

    @property
    def bytecode(self) -> Path:
        """Sources of environments as the self-test compiled them, by their hashes."""
        return self.cache / "bytecode"

    @property
    def directories(self) -> tuple[Path, ...]:
        """All that bnbenv makes in its home, but the configuration."""
        made = (self.envs, self.generations, self.paths, self.locks, self.rows)
        return (*made, self.runs, self.reports, self.cache)

    def named(self, name: str) -> Place:
        """The place of the environment `name`.

        Raises:
            UsageError: code ``bad-name``.
        """
        name = checked_name(name)
        for directory in (self.envs, self.generations):
            name = unicodedata.normalize("NFC", _as_on_disk(directory, name))
        below = self.generations / name
        return Place(name=name, link=self.envs / name, generations=below, lock=below / LOCK, form="home")

    def at(self, directory: str | os.PathLike[str], *, generations: bool = True) -> Place:
        """The place of the environment at `directory`; nothing is looked at yet (`check_free` does).

        Raises:
            UsageError: codes ``bad-name``, ``path-occupied``.
        """
        text = _checked_path(os.fspath(directory))
        given = Path(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100,PTH111 - collapses `..`, keeps the last link
        if given.parent == given or not given.name:
            raise UsageError(f"`{given}` cannot hold an environment", code="bad-name")
        # The parent's links are resolved so that one place has one name; the last part may be our own link.
        parent = Path(os.path.realpath(given.parent))
        link = parent / _as_on_disk(parent, given.name)
        home = Path(os.path.realpath(self.home))
        if link == home or home in link.parents:
            raise UsageError(
                f"`{link}` is inside bnbenv's home",
                hint="leave out `--path` and give the environment a name",
                code="path-occupied",
            )
        if not generations:
            lock = self.lock_of(link)
            return Place(name=str(link), link=link, generations=link.parent, lock=lock, form="plain")
        below = link.with_name(link.name + GENERATIONS_SUFFIX)
        return Place(name=str(link), link=link, generations=below, lock=below / LOCK, form="path")

    def lock_of(self, directory: Path) -> Path:
        """The lock of an environment that has no generations; it need not be bnbenv's own."""
        return self.locks / f"{_short_hash(os.path.realpath(directory))}.lock"

    def names(self) -> tuple[str, ...]:
        """The names that have a link or, where the link is lost, generations; sorted."""
        found = set()
        for directory in (self.envs, self.generations):
            for entry in durable.names_in(directory):
                try:
                    name = checked_name(entry)
                except UsageError:
                    continue
                if directory == self.envs or any(
                    re.fullmatch(GENERATION_NAME, part) for part in durable.names_in(directory / entry)
                ):
                    found.add(name)
        return tuple(sorted(found))

    def remember(self, place: Place) -> None:
        """Note an environment made with ``--path``; forgotten again by `known_paths` when it is gone."""
        if place.form == "home":
            return
        record = {"schema": 1, "path": str(place.link), "form": place.form}
        with durable.told(self.paths, "create"):
            self.paths.mkdir(parents=True, exist_ok=True)
        durable.write_whole(self._note(place), (json.dumps(record) + "\n").encode())

    def forget(self, place: Place) -> None:
        """Drop the note that `remember` made."""
        with durable.told(self.paths, "change"):
            self._note(place).unlink(missing_ok=True)

    def known_paths(self) -> tuple[Place, ...]:
        """The environments made with ``--path`` that still stand; unreadable notes are passed over."""
        found = []
        for entry in durable.names_in(self.paths):
            try:
                record = json.loads((self.paths / entry).read_bytes())
                place = self.at(record["path"], generations=record["form"] == "path")
            except (OSError, ValueError, KeyError, TypeError, UsageError):
                continue
            if place.exists:
                found.append(place)
        return tuple(found)

    def _note(self, place: Place) -> Path:
        return self.paths / f"{_short_hash(str(place.link))}.json"


def check_free(place: Place) -> None:  # noqa: C901 - one plain question after another
    """Refuse a place that holds anything that bnbenv did not make.

    Raises:
        UsageError: code ``path-occupied``; nothing was touched.
    """
    if place.form == "plain":
        if place.link.is_symlink() or (place.link.exists() and not place.link.is_dir()):
            raise _occupied(place.link, "a link or a file stands there")
        if not _is_free_or_plain(place.link):
            raise _occupied(place.link, "it holds files that bnbenv did not make")
        return
    if place.link.is_symlink():
        if leads_to_generations(place):
            return
        if place.form == "path" or os.path.exists(place.link):  # noqa: PTH110 - follows the link
            raise _occupied(place.link, f"a link to `{place.link.readlink()}` stands there")
    elif place.link.is_dir():
        ours = place.current_file.is_file() and leads_to_generations(place)  # a junction
        if not ours and (place.form == "home" or durable.names_in(place.link) or place.link == Path.cwd()):
            raise _occupied(place.link, "a directory that bnbenv did not make stands there")
    elif place.link.exists():
        raise _occupied(place.link, "a file stands there")
    if place.form == "path":
        _check_generations_free(place.generations)


def leads_to_generations(place: Place) -> bool:
    """Whether the link is bnbenv's: a user may have put a directory or a link of their own in its place."""
    return Path(os.path.realpath(place.link)).parent == Path(os.path.realpath(place.generations))


def prepare(place: Place) -> None:
    """Make the directories that `place` needs, after `check_free` has agreed.

    Raises:
        UsageError: code ``path-occupied``.
        ExternalError: codes ``permission``, ``disk-full``.
    """
    check_free(place)
    if place.form == "plain":
        with durable.told(place.link, "create"):
            (place.link / FACTS).mkdir(parents=True, exist_ok=True)
            place.lock.parent.mkdir(parents=True, exist_ok=True)
        durable.write_whole(place.link / FACTS / "PLAIN", b"")
        return
    with durable.told(place.generations, "create"):
        place.generations.mkdir(parents=True, exist_ok=True)
        place.link.parent.mkdir(parents=True, exist_ok=True)
    if place.form == "path" and not (place.generations / ".gitignore").is_file():
        durable.write_whole(place.generations / ".gitignore", f"{_MARK}*\n".encode())


def _as_on_disk(directory: Path, name: str) -> str:
    """A name as the directory spells it: most disks of Macs and Windows take `QLoRA` for `qlora`."""
    if not os.path.lexists(directory / name) or name in (names := durable.names_in(directory)):
        return name
    folded = unicodedata.normalize("NFC", name).casefold()
    return next((entry for entry in names if unicodedata.normalize("NFC", entry).casefold() == folded), name)


def _is_free_or_plain(directory: Path) -> bool:
    facts = directory / FACTS
    if (facts / "PLAIN").is_file():
        return True
    # A kill between the first two steps leaves our directory empty, or with a temporary file.
    begun = set(durable.names_in(directory)) <= {FACTS}
    return begun and all(name.endswith(durable.TEMPORARY_SUFFIX) for name in durable.names_in(facts))


def _check_generations_free(directory: Path) -> None:
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise _occupied(directory, "a link or a file stands there, where the generations would go")
    # A removal on Windows leaves the lock alone.
    entries = set(durable.names_in(directory)) - {LOCK}
    if any(not entry.endswith(durable.TEMPORARY_SUFFIX) for entry in entries):
        try:
            ours = (directory / ".gitignore").read_text(encoding="utf-8", errors="replace").startswith(_MARK)
        except OSError:
            ours = False
        if not ours:
            raise _occupied(
                directory, "it holds files that bnbenv did not make, where the generations would go"
            )


def _occupied(path: Path, why: str) -> UsageError:
    return UsageError(
        f"`{path}` is not free: {why}; nothing was changed",
        hint="choose another `--path`, or move what is there",
        code="path-occupied",
    )


def _short_hash(text: str) -> str:
    return hexdigest(text.encode(errors="surrogatepass"))[:12]


def _checked_path(text: str) -> str:
    if not text.strip():
        raise UsageError("the path is empty", code="bad-name")
    bad = next((character for character in text if unicodedata.category(character) in {"Cc", "Cs"}), None)
    if bad is not None:
        raise UsageError(f"the path {text!r} holds the control character {bad!r}", code="bad-name")
    return text
