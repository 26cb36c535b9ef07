"""`why-not`: why a release is not chosen."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING, Any

from bnbenv.cli.findings import findings_text
from bnbenv.cli.options import add_target, description_words, python_version, target_or_here
from bnbenv.cli.outcome import Outcome
from bnbenv.cli.parser import nearest
from bnbenv.cli.releases import named_release, specifier
from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui
    from bnbenv.machine.target import Target

EPILOG = """\
Examples:
  bnbenv why-not torch==2.14.1
  bnbenv why-not bitsandbytes==0.42.0 --profile inference
  bnbenv why-not torch==2.14.1 --gpu "Tesla V100" --driver 570
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "release", metavar="PACKAGE==VERSION", nargs="+", help="a release of torch or bitsandbytes"
    )
    parser.add_argument(
        "--profile", default="qlora", metavar="PROFILE", help="for what purpose (default: qlora)"
    )
    parser.add_argument("--python", type=python_version, metavar="VERSION", help="with this Python")
    parser.add_argument("--cpu", action="store_true", help="for computing on the processor")
    parser.add_argument(
        "--without-index", action="append", default=[], metavar="NAME", help="as if this index were not there"
    )
    add_target(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Answer."""
    from bnbenv.workflows.config import read_config
    from bnbenv.workflows.request import Wanted
    from bnbenv.workflows.resolve import known_indexes, load_matrix, why_not

    wanted = Wanted(
        profile=args.profile, python=args.python, cpu=args.cpu, without_index=tuple(args.without_index)
    )
    pin = _pin(" ".join(args.release), args)
    target = target_or_here(args)
    package, _, release = pin.partition("==")
    matrix = load_matrix(target, release=release.strip() if package.strip() == "bitsandbytes" else None)
    known = known_indexes(wanted, matrix, read_config().mirrors, os.environ)
    data = why_not(pin, wanted, target, matrix, known)
    return Outcome(data=data, text=_text(data, target, ui))


_PACKAGE = re.compile(r"(?P<name>[a-z][\w.-]*)\s*(?P<range>[<>=!~].*|v?\d.*)?", re.IGNORECASE)
# What is asked about like a package, and is none: each is an option of the command that chooses.
_OPTION = re.compile(
    r"(?P<name>cuda|cu(?=\d)|rocm|hip|python|py(?=[ \d])|(?:nvidia[ -])?driver)[ =:-]*(?P<version>\d[\w.]*)",
    re.IGNORECASE,
)


def _pin(text: str, args: Namespace) -> str:
    """The pin as it is asked: ``torch==2.9.1`` for ``pytorch 2.9.1``.

    Raises:
        UsageError: it is of another package, of several, or of none.
    """
    text = text.strip()
    if option := _OPTION.fullmatch(text):
        raise _not_a_release(option, args)
    if named := named_release(text):
        package, told = named
        if second := re.search(r"\s(?=(?:pytorch|torch|bitsandbytes|bnb)\b)", told, re.IGNORECASE):
            raise _several(package, told[: second.start()], told[second.end() :], args)
        return f"{package}{told}" if told[:1] in "<>=!~" else f"{package} {told}"
    match = _PACKAGE.fullmatch(text)
    if match is None:
        bare = re.fullmatch(r"v?(\d+\.\d[\w.+]*)", text)
        if bare is None:
            return text
        package = "bitsandbytes" if bare[1].startswith("0.") else "torch"  # which has left 0.4 long ago
        return f"{package}=={bare[1]}"
    name, told = match["name"], match["range"] or ""
    meant = nearest(name.lower(), ("torch", "pytorch", "bitsandbytes"))
    if meant and abs(len(meant) - len(name)) <= 1:  # a letter wrong, and not `torchvision`
        hint = shlex.join(["bnbenv", "why-not", f"{meant}{told}", *description_words(args)])
    else:
        asked = f"{name}{specifier(told) if told[:1].isalnum() else told}"
        hint = shlex.join(["bnbenv", "create", args.profile, "--with", asked, "--dry-run"])
    raise UsageError(
        f"`why-not` is asked about torch and bitsandbytes, not about `{name}`", hint=hint, code="bad-request"
    )


def _not_a_release(option: re.Match[str], args: Namespace) -> UsageError:
    """That CUDA, Python and the driver are told to `resolve`, and how."""
    name = option["name"].lower()
    if name in ("rocm", "hip"):
        return UsageError(
            "`why-not` is asked about releases of torch and bitsandbytes: ROCm comes with the build of torch",
            hint=f"such as `bnbenv why-not torch==2.9.1+rocm{option['version']}`",
            code="bad-request",
        )
    name = "driver" if name.endswith("driver") else "python" if name.startswith("py") else "cuda"
    what = {"driver": "a driver is a fact of the machine", "python": "Python is chosen with the rest"}.get(
        name, "CUDA comes with the build of torch"
    )
    words = list(description_words(args)) or (["--gpu", "GPU"] if name == "driver" else [])
    return UsageError(
        f"`why-not` is asked about releases of torch and bitsandbytes: {what}",
        hint=shlex.join(["bnbenv", "resolve", args.profile, f"--{name}", option["version"], *words]),
        code="bad-request",
    )


def _several(package: str, first: str, second: str, args: Namespace) -> UsageError:
    """That a combination is asked of `check`."""
    other = named_release(second)
    words = ["bnbenv", "check"]
    for name, told in ((package, first.strip()), *((other,) if other else ())):
        words += [f"--{name}", told.removeprefix("==")]
    return UsageError(
        "`why-not` is asked about one release; `check` is, about two that stand together",
        hint=shlex.join([*words, *description_words(args)]),
        code="bad-request",
    )


def _text(data: dict[str, Any], target: Target, ui: Ui) -> str:
    from bnbenv.cli.resolution import indexes_text, not_taken_text

    if data["chosen"]:
        return "\n".join([f"{data['pin']} is what would be chosen for {target}", *indexes_text(data, ui)])
    if data["possible"]:
        lines = [f"{data['pin']} would work, but it is not the first choice for {target}"]
    else:
        lines = [f"{data['pin']} cannot serve {target}"]
    lines += findings_text(data["findings"], ui)
    lines += [not_taken_text(row) for row in data["not_taken"]]
    if data["ways"]:
        lines += [
            f"{word} {', '.join(way['needs'])}: torch {way['torch']} ({way['build']})"
            for word, way in zip(
                ("it would need", *("or" for _ in data["ways"][1:])), data["ways"], strict=True
            )
        ]
    elif data["needs"]:
        lines.append(f"it would need {', '.join(data['needs'])}")
    if data["instead"]:
        torch, wheel = data["instead"]["torch"], data["instead"]["bitsandbytes"]
        beside = f" with bitsandbytes {wheel['version']}" if wheel else ""
        lines.append(f"chosen instead: torch {torch['version']} ({torch['build']}){beside}")
    return "\n".join([*lines, *indexes_text(data, ui)])
