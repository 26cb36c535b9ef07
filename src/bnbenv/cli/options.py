"""Options that several commands share, and how they become values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bnbenv.cli.releases import named_release, python_release, specifier

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _ArgumentGroup
    from collections.abc import Callable
    from pathlib import Path

    from bnbenv.cli.ui import Ui
    from bnbenv.install.requirement_files import RequirementLines
    from bnbenv.machine.target import Arch, Target

DESCRIPTION = ("target", "gpu", "driver", "os", "arch", "glibc")
"""The options that describe another machine."""


def add_name(parser: ArgumentParser) -> None:
    """``NAME``: an environment of bnbenv's own."""
    parser.add_argument("name", metavar="NAME", help="a name, or the path of an environment")


def add_environment(parser: ArgumentParser, *, changing: bool = False) -> None:
    """``ENV``: any environment; what changes one takes bnbenv's own Python only where it is named."""
    own = "" if changing else ", bnbenv's own"
    parser.add_argument(
        "env",
        metavar="ENV",
        nargs="?",
        help=f"a name, a directory or an interpreter (default: the active one, ./.venv{own})",
    )


def lock_directory(given: str | None, what: str, ui: Ui) -> Path:
    """Where the lock stands: as it was named, else here, else above; that is told.

    Raises:
        UsageError: the home directory in it cannot be told.
    """
    from pathlib import Path

    from bnbenv.home import expanded
    from bnbenv.lockfile.above import nearest

    if given is not None:
        return expanded(given, what).absolute()
    here = Path.cwd()
    found = nearest(here)
    if found is None or found == here:
        return here
    ui.say(f"lock: {found}, the nearest above")
    return found


def add_target(parser: ArgumentParser, *, several: bool = False) -> None:
    """The options that describe a machine other than this one; with `several`, any number of files."""
    group = parser.add_argument_group("other machines" if several else "another machine")
    group.add_argument(
        "--target",
        metavar="FILE",
        action="append",  # a second one for one machine is refused, and not taken instead of the first
        default=[],
        help="a machine described by `bnbenv detect --json` there; `-` reads stdin"
        + ("; repeat for several" if several else ""),
    )
    group.add_argument(
        "--gpu",
        action="append",
        default=[],
        metavar="GPU",
        help='a GPU: its name ("RTX 4090"), compute capability (8.9) or gfx target; repeat for several',
    )
    group.add_argument("--driver", metavar="VERSION", help="its driver, such as 550 or 550.54.15")
    group.add_argument(
        "--os",
        choices=("linux", "windows", "macos", "wsl"),
        type=_os_name,
        help="its operating system; `wsl` is Linux in WSL2, where the driver is that of Windows",
    )
    group.add_argument(
        "--arch", choices=("x86_64", "aarch64"), type=_arch_name, help="its processor architecture"
    )
    group.add_argument("--glibc", metavar="VERSION", help="its glibc, such as 2.35")


def _os_name(text: str) -> str:
    """The system that people call so: ``Windows 11``, ``darwin``, ``WSL2``."""
    bare = re.sub(r"[ \d.]+$", "", text.lower())
    return {
        "win": "windows",
        "darwin": "macos",
        "mac": "macos",
        "mac os": "macos",
        "osx": "macos",
        "windows subsystem for linux": "wsl",
    }.get(bare, bare)


def _arch_name(text: str) -> str:
    from bnbenv.machine.running import arch_called

    return arch_called(text) or text


def add_request(parser: ArgumentParser, *, several: bool = False) -> None:
    """The options that narrow the choice of a stack.

    Args:
        parser: of the command.
        several: the choice is for many machines, so that no preference goes by one of them; the command has
            a profile argument of its own.
    """
    if not several:
        parser.add_argument(
            "profile",
            metavar="PROFILE",
            nargs="?",
            default="qlora",
            help="what it is for: qlora, inference, … (default: qlora)",
        )
    group = parser.add_argument_group("what to choose")
    group.add_argument(
        "--torch",
        metavar="SPEC",
        type=release_of("torch"),
        help="a release or range of torch, such as 2.9.1 or '>=2.8,<2.10'",
    )
    group.add_argument(
        "--bitsandbytes",
        metavar="SPEC",
        type=release_of("bitsandbytes"),
        help="a release or range of bitsandbytes",
    )
    group.add_argument("--cuda", metavar="VERSION", help="the CUDA version of torch's build, such as 12.6")
    group.add_argument(
        "--python", type=python_version, metavar="VERSION", help="the Python minor version, such as 3.12"
    )
    if not several:
        group.add_argument(
            "--prefer",
            choices=("newest", "verified"),
            default="newest",
            help="what comes first: the newest stack, or the newest that was verified on such a machine",
        )
    group.add_argument("--cpu", action="store_true", help="a CPU build of torch, whatever the machine has")
    group.add_argument(
        "--without-index",
        action="append",
        default=[],
        metavar="NAME",
        help="do not use this index or family of indexes, such as pytorch",
    )


def release_of(package: str) -> Callable[[str], str]:
    """Reads ``2.9.1`` and ``>=2.8`` also where the package is named again, and as people write releases."""

    def read(text: str) -> str:
        named = named_release(text)
        if named is not None and named[0] != package:
            return text
        told = specifier(text) if named is None else named[1]
        return told.removeprefix("==") if re.fullmatch(r"==[\w.+]+", told) else told

    return read


def python_version(text: str) -> str:
    """What ``--python`` is given, which the judge reads; none of its rows is for a `3` alone.

    Raises:
        UsageError: there is no minor version.
    """
    if text.strip().isdigit():
        from bnbenv.errors import UsageError

        raise UsageError(
            f"`--python {text}` has no minor version", hint="such as `--python 3.12`", code="bad-request"
        )
    return python_release(text)


def add_offline(parser: ArgumentParser) -> None:
    """``--offline``."""
    parser.add_argument("--offline", action="store_true", help="no network: caches and wheelhouses alone")


def add_anyway(parser: ArgumentParser) -> None:
    """``--anyway``, of commands that add packages."""
    parser.add_argument(
        "--anyway", action="store_true", help="let in what is known to break the others; it is recorded"
    )


def add_link_mode(parser: ArgumentParser | _ArgumentGroup) -> None:
    """``--link-mode``, of commands that install."""
    parser.add_argument(
        "--link-mode",
        choices=("auto", "clone", "hardlink", "copy"),  # `LinkMode`
        default=None,
        help="how files come from uv's cache",
    )


def add_yes(parser: ArgumentParser) -> None:
    """``--yes`` and ``--dry-run``, of commands that change something."""
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done and change nothing")


def describes_other(args: Namespace) -> bool:
    """Whether the line describes another machine."""
    return any(getattr(args, name) for name in DESCRIPTION)


def other_target(args: Namespace) -> Target | None:
    """The machine that ``--target`` or ``--gpu …`` describes; ``None`` for this one.

    Raises:
        UsageError: the file or a description cannot be read, or both or several files are given.
    """
    if not describes_other(args):
        return None
    if len(args.target) > 1:
        from bnbenv.errors import UsageError

        raise UsageError(
            f"`--target` is given {len(args.target)} times, and this command is about one machine",
            hint="type it once for each; `bnbenv lock` takes several, and so does `bnbenv resolve --batch`",
        )
    if args.target:
        named = [f"--{name}" for name in DESCRIPTION if name != "target" and getattr(args, name)]
        if named:
            from bnbenv.errors import UsageError

            raise UsageError(
                f"`--target` and `{named[0]}` both describe the machine",
                hint="give one of them, or edit the target file",
            )
        return read_target(args.target[0])
    return described_target(args)


def described_target(args: Namespace) -> Target:
    """The machine that ``--gpu …`` describes.

    Raises:
        UsageError: a description cannot be read.
    """
    from bnbenv.machine.described import describe, on_arm
    from bnbenv.machine.probe import probe
    from bnbenv.matrix.gpus import find_gpu
    from bnbenv.matrix.load import load

    # What is not said of the system is taken from this one: a login node and its compute nodes are alike.
    here = probe().target
    rows = load("gpus").gpus if args.gpu else ()

    os = "linux" if args.os == "wsl" else args.os or here.os

    def of(arch: Arch) -> Target:
        # What is called Linux in WSL2 is Linux on its own, which has a driver of its own.
        wsl = args.os == "wsl" or (args.os is None and here.wsl and arch == here.arch)
        same = (os, arch, wsl) == (here.os, here.arch, here.wsl)
        glibc = str(here.libc.version) if same and here.libc and here.libc.family == "glibc" else None
        python = getattr(args, "python", None)
        pythons = here.pythons if same else ()
        return describe(
            name="described",
            gpus=tuple(args.gpu),
            driver=args.driver,
            os=os,
            arch=arch,
            glibc=args.glibc or glibc,
            pythons=(python,) if python else pythons,
            wsl=wsl,
            find_gpu=lambda text: find_gpu(rows, text),
        )

    target = of(args.arch or here.arch)
    return of("aarch64") if not args.arch and any(map(on_arm, target.gpus)) else target


def description_words(args: Namespace, *, files: bool = True) -> tuple[str, ...]:
    """The options that describe another machine as they were typed, for a hint that is about it."""
    words: list[str] = []
    for name in DESCRIPTION if files else DESCRIPTION[1:]:
        given = getattr(args, name) or []
        for value in given if isinstance(given, list) else [given]:
            words += [f"--{name}", value]
    return tuple(words)


def target_or_here(args: Namespace) -> Target:
    """The machine that is described, else this one."""
    described = other_target(args)
    if described is not None:
        return described
    from bnbenv.machine.probe import probe

    return probe().target


def read_target(name: str) -> Target:
    """The machine that a target file describes; ``-`` is stdin.

    Raises:
        UsageError: it cannot be read.
    """
    import json
    import sys
    from pathlib import Path

    from bnbenv.errors import UsageError
    from bnbenv.machine.document import target_from_dict
    from bnbenv.texts import encoding_of

    where = "stdin" if name == "-" else f"`{name}`"
    try:
        written = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        data = json.loads(written.decode(encoding_of(written)))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the target {where} cannot be read: {getattr(error, 'strerror', None) or error}",
            hint="bnbenv detect --json > target.json, on the machine in question",
            code="bad-target",
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"the target {where} is not JSON: {error}",
            hint="bnbenv detect --json > target.json, on the machine in question",
            code="bad-target",
        ) from error
    try:
        return target_from_dict(unwrap_target(data))
    except UsageError as error:
        raise UsageError(
            f"the target {where}: {error.message}",
            hint=error.hint or "bnbenv detect --json > target.json, on the machine in question",
            code=error.code,
        ) from error


def unwrap_target(data: object) -> object:
    """The target inside the envelope of `detect --json`, or the value itself."""
    if isinstance(data, dict) and "gpus" not in data and isinstance(data.get("data"), dict):
        return data["data"].get("target", data)
    return data


def read_requirements(files: list[str]) -> RequirementLines:
    """What the requirements files say, includes spelled out.

    Raises:
        UsageError: a file or a line cannot be read.
    """
    from bnbenv.home import expanded
    from bnbenv.install.requirement_files import read_requirement_files

    return read_requirement_files(expanded(name, "`--requirements`") for name in files)


def user_profile(name: str, command: str) -> dict[str, Any] | None:
    """The user's own profile of that name, where bnbenv has none.

    Raises:
        UsageError: the file that defines it cannot be read, or there is no such profile at all.
    """
    from pathlib import Path

    from bnbenv.matrix.load import load
    from bnbenv.workflows.profiles import definition_of, read_definitions

    own = definition_of(name, Path.cwd())
    builtin = [row.name for row in load("profiles").profiles]
    if own is None and name not in builtin:
        from bnbenv.cli.guidance import unknown_profile

        raise unknown_profile(name, [*builtin, *read_definitions(Path.cwd())[1]], command)
    return own
