"""What a line that means nothing here was most likely meant to do, and the line that does it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from bnbenv.cli.commands import COMMANDS
from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# What other tools call it → the line here; `ENV` becomes the environment that the user has.
_ELSEWHERE = {
    "activate": "bnbenv shell ENV",
    "add": "bnbenv install einops --in ENV",
    "bug": "bnbenv report ENV",
    "build": "bnbenv create qlora",
    "cache": "bnbenv clean --dry-run",
    "deactivate": "exit, in the shell that `bnbenv shell` opened",
    "del": "bnbenv remove ENV",
    "delete": "bnbenv remove ENV",
    "env": "bnbenv list",
    "envs": "bnbenv list",
    "exec": "bnbenv run ENV -- python",
    "explain": "bnbenv why-not torch==2.10.0",
    "finetune": "bnbenv example qlora -o train.py",
    "fix": "bnbenv repair ENV",
    "freeze": "bnbenv lock --help",
    "gc": "bnbenv prune",
    "gpu": "bnbenv detect",
    "init": "bnbenv create qlora",
    "jupyter": "bnbenv kernel install ENV",
    "ls": "bnbenv list",
    "make": "bnbenv create qlora",
    "new": "bnbenv create qlora",
    "notebook": "bnbenv kernel install ENV",
    "pip": "bnbenv install einops --in ENV, or bnbenv run ENV -- pip list",
    "purge": "bnbenv prune, or bnbenv clean",
    "python": "bnbenv run ENV -- python",
    "rm": "bnbenv remove ENV",
    "settings": "bnbenv config",
    "setup": "bnbenv create qlora",
    "show": "bnbenv info ENV",
    "status": "bnbenv doctor ENV",
    "test": "bnbenv verify ENV",
    "train": "bnbenv example qlora -o train.py",
    "undo": "bnbenv rollback ENV",
    "uninstall": "bnbenv remove ENV (an environment), or bnbenv self uninstall (all that is bnbenv's)",
    "update": "bnbenv upgrade --in ENV (an environment), or bnbenv self upgrade (bnbenv)",
    "version": "bnbenv --version",
    "vram": "bnbenv memory MODEL",
    "which": "bnbenv path ENV",
}
_OF_ENVIRONMENTS = "NAME"


def unknown_command(word: str, rest: Sequence[str]) -> UsageError:
    """There is no such command: what other tools call so, a profile, or the command that is spelt like it.

    Args:
        word: as it was typed.
        rest: what follows it.
    """
    from bnbenv.cli.parser import nearest

    told = f"there is no command `{word}`"
    bare = word.lower()
    if (line := _ELSEWHERE.get(bare)) is not None:
        return UsageError(told, hint=line.replace("ENV", some_environment()))
    if profile := _profile(bare):
        return UsageError(
            f"`{word}` is a profile, and no command", hint=shlex.join(["bnbenv", "create", profile, *rest])
        )
    if near := nearest(bare, COMMANDS):
        return UsageError(f"{told}; did you mean `{near}`?", hint=f"bnbenv {near} --help")
    return UsageError(told, hint="bnbenv --help")


def lacking(program: str, missing: str) -> UsageError:
    """A line lacks words that its command cannot do without.

    Args:
        program: the command as it is typed, such as ``bnbenv info``.
        missing: the names of what is missing, as the command's help writes them.
    """
    names = missing.split(", ")
    if names[0] != _OF_ENVIRONMENTS:
        return UsageError(f"the following arguments are required: {missing}", hint=f"{program} --help")
    found = environments()
    if not found:
        return UsageError("no environment is named, and there is none yet", hint="bnbenv create qlora")
    tail = " -- python" if program == "bnbenv run" else ""
    there = ", ".join(f"`{name}`" for name in found)
    return UsageError(
        f"no environment is named; there {'is' if len(found) == 1 else 'are'} {there}",
        hint=f"{program} {shlex.quote(found[0])}{tail}",
    )


def program_for_name(name: str, command: Sequence[str]) -> UsageError | None:
    """`run` was given a program where the environment's name belongs: ``bnbenv run train.py``.

    Args:
        name: what stands in the environment's place, where none of that name is.
        command: the words behind it.
    """
    import re

    script = name.endswith((".py", ".ipynb"))
    if not script and not re.fullmatch(r"python[\d.]*|pip3?|accelerate|torchrun|jupyter|deepspeed", name):
        return None
    meant = [*(["python"] if name.endswith(".py") else []), name, *command]
    if name.endswith(".ipynb"):
        meant = ["jupyter", "lab", name]
    return UsageError(
        f"`{name}` stands where the name of an environment belongs",
        hint=f"bnbenv run {shlex.quote(some_environment())} -- {shlex.join(meant)}",
    )


def program_on_line(own: Sequence[str], tail: Sequence[str]) -> UsageError | None:
    """The same of a line that `run` cannot read: ``bnbenv run train.py --epochs 3``.

    Args:
        own: the words that `run` takes for its own.
        tail: the words that it would hand on.
    """
    words = [*own, *tail]
    at = next((place for place, word in enumerate(words) if word[:1] != "-"), None)
    if at is None or words[at] in environments():
        return None
    return program_for_name(words[at], words[at + 1 :])


def environment_for_package(command: str, packages: Sequence[str], typed: Sequence[str]) -> UsageError | None:
    """`install` and `upgrade` were given an environment where packages belong: ``bnbenv install qlora trl``.

    Args:
        command: which of the two.
        packages: what was named, where no ``--in`` says which environment is meant.
        typed: the words behind the command.
    """
    if not packages or packages[0] not in environments():
        return None
    words = list(typed)
    words.remove(packages[0])
    if command == "install" and len(packages) == 1:
        words.insert(0, "einops")
    return UsageError(
        f"`{packages[0]}` is an environment, and stands where packages belong",
        hint=shlex.join(["bnbenv", command, *words, "--in", packages[0]]),
    )


def unknown_profile(word: str, known: Iterable[str], command: str) -> UsageError:
    """There is no such profile: people name a model, a package, a place or a new environment there.

    Args:
        word: as it was typed.
        known: the names of all profiles.
        command: where it was typed; only `create` makes what another word may have meant.
    """
    import re

    from bnbenv.cli.parser import nearest

    names = tuple(known)
    told = f"there is no profile `{word}`"
    near = next((name for name in names if name == word.lower()), None) or nearest(word.lower(), names)
    if near:
        return _bad(f"{told}; did you mean `{near}`?", f"bnbenv {command} {near}")
    shown = ", ".join(f"`{name}`" for name in names)
    if command != "create":
        return _bad(f"{told}; there are {shown}", "bnbenv profiles")
    if re.match(r"\.{0,2}[/\\]|~|[A-Za-z]:", word):
        return _bad(f"{told}: it is a place", shlex.join(["bnbenv", "create", "qlora", "--path", word]))
    if pinned := re.fullmatch(r"(torch|bitsandbytes)\s*==?\s*([\w.+]+)", word):
        return _bad(f"{told}: it is a release", f"bnbenv create qlora --{pinned[1]} {pinned[2]}")
    if "/" in word:
        return _bad(
            f"{told}: a profile says what an environment is for, and a program which model",
            f"bnbenv create qlora, and for the room it takes: {shlex.join(['bnbenv', 'memory', word])}",
        )
    if word in {"torch", "bitsandbytes", "transformers", "peft", "accelerate", "trl"}:
        return _bad(f"{told}; there are {shown}, and `qlora` brings {word}", "bnbenv create qlora")
    if not re.fullmatch(r"[\w.-]+", word):
        return _bad(f"{told}; there are {shown}", "bnbenv profiles")
    return _bad(
        f"{told}; there are {shown}",
        f"bnbenv create qlora --name {word} (`--with {word}` for a package of that name), or bnbenv profiles",
    )


def _bad(message: str, hint: str) -> UsageError:
    return UsageError(message, hint=hint, code="bad-request")


def environments() -> tuple[str, ...]:
    """The names of bnbenv's environments; none where they cannot be read."""
    import os
    from contextlib import suppress

    from bnbenv.env.layout import Layout
    from bnbenv.errors import BnbenvError
    from bnbenv.workflows.environment import all_places

    with suppress(BnbenvError, OSError, RuntimeError):
        return tuple(place.name for place in all_places(Layout.find(os.environ)) if place.form == "home")
    return ()


def some_environment() -> str:
    """An environment to name in a line to type: one that is there, else what `create` makes by itself."""
    found = environments()
    return "qlora" if not found or "qlora" in found else found[0]


def _profile(word: str) -> str | None:
    from bnbenv.matrix.load import load

    return next((row.name for row in load("profiles").profiles if row.name == word), None)
