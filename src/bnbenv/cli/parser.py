"""The command line's grammar: a small root parser, and one parser a command that is built when it is used."""

from __future__ import annotations

import argparse
import sys

from bnbenv.cli.commands import COMMANDS, GROUPS, module_name
from bnbenv.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any, NoReturn

    from _typeshed import SupportsWrite

_ROOT_EXAMPLES = """\
Examples:
  bnbenv create qlora                   an environment for QLoRA on this machine
  bnbenv run qlora -- python train.py   a command in it
  bnbenv verify qlora --level train     train a tiny model in it, to be sure
  bnbenv create qlora --gpu "RTX 4090" --driver 550   for a machine elsewhere
"""
_WIDTH = 80  # of help that goes to no terminal, as argparse has it
_ROOT_NOTES = """\
`bnbenv COMMAND --help` shows the options of a command, and `bnbenv self schema` what `--json` prints.

Exit codes: 0 fine, 1 findings or a failed self-test, 2 the command line or a file given is wrong, 3 nothing
serves the machine, 4 no such environment, 5 a tool, the network or the disk failed, 6 the matrix or a lock
is invalid, 70 a bug, 130 interrupted by Ctrl-C (by SIGTERM 143, by SIGHUP 129). `run` and `shell` end with
their program's own.

Variables: BNBENV_HOME, where environments stand; BNBENV_LOG, a file to append logs to; BNBENV_COMPAT, another
directory with the compatibility data; NO_COLOR and FORCE_COLOR.
"""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError` instead of leaving the process.

    Attributes:
        gathers: the list that also takes words behind options: argparse alone fills it with its first run.
        surplus: the option that a word too many was most likely meant for, such as ``--name``.
    """

    gathers: str | None = None
    surplus: str | None = None

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise the message, with the help of this very parser as the next thing to type."""
        head, found, missing = message.partition("the following arguments are required: ")
        if found and not head:
            from bnbenv.cli.guidance import lacking

            raise lacking(self.prog, missing)
        raise UsageError(message, hint=f"{self.prog} --help")

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Write the help; argparse would keep silent where it cannot be written."""
        from bnbenv.cli.wrapping import width_of, wrapped

        stream: Any = file or sys.stdout
        stream.write(wrapped(self.format_help(), width_of(stream)))

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, and answer an unknown option here, where the known ones can be compared with it."""
        result, extras = super().parse_known_args(args, namespace)
        if self.gathers:
            words = [word for word in extras if word[:1] != "-"]
            getattr(result, self.gathers).extend(words)
            extras = [word for word in extras if word[:1] == "-"]
        else:
            self._fill(result, extras)
        if extras:
            first = extras[0]
            near = nearest(first.partition("=")[0], self._option_string_actions) if first[:1] == "-" else None
            if first[:1] != "-" and self.surplus:
                import shlex

                meant = shlex.join(
                    [*(word for word in args or () if word not in extras), self.surplus, first]
                )
                raise UsageError(f"unexpected argument `{first}`", hint=f"{self.prog} {meant}")
            word = "unknown option" if first[:1] == "-" else "unexpected argument"
            self.error(f"{word} `{first}`" + (f"; did you mean `{near}`?" if near else ""))
        return result, extras

    def _fill(self, result: argparse.Namespace, extras: list[str]) -> None:
        # argparse takes optional words only where they follow the first one: `kernel install --json NAME`
        # leaves the name over.
        for action in self._get_positional_actions():
            left = next((word for word in extras if word[:1] != "-"), None)
            if left is None:
                return
            if action.nargs == argparse.OPTIONAL and getattr(result, action.dest) is action.default is None:
                setattr(result, action.dest, self._get_values(action, [left]))
                extras.remove(left)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        # `--base "$PYTHON"` where the variable is not set: taken for no option it would do something else.
        if action.nargs != argparse.REMAINDER and not all(word.strip() for word in arg_strings):
            self.error(f"the {argparse_name(action)} is an empty word")
        return super()._get_values(action, arg_strings)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            near = nearest(str(value), choices)
            name = argparse_name(action)
            self.error(
                f"`{value}` is no {name}; "
                + (f"did you mean `{near}`? It is one of " if near else "it is one of ")
                + f"{', '.join(f'`{choice}`' for choice in choices)}"
            )


def argparse_name(action: argparse.Action) -> str:
    """How an argument is called in a message."""
    if action.option_strings:
        return f"value of `{action.option_strings[-1]}`"
    name = action.metavar if isinstance(action.metavar, str) else action.dest
    return name.lower()


def nearest(word: str, known: Any) -> str | None:
    """The known word most like `word`, if any is like it."""
    from difflib import get_close_matches

    # Without the dashes, which every option shares and which would make any two alike.
    bare = {str(it).lstrip("-"): str(it) for it in known}
    found = get_close_matches(word.lstrip("-"), list(bare), n=1, cutoff=0.6)
    return bare[found[0]] if found else None


class _Version(argparse.Action):
    def __call__(self, *_: object) -> NoReturn:
        # argparse's own action wraps the text to the terminal, which costs an import of `shutil`.
        from bnbenv import __version__

        sys.stdout.write(f"bnbenv {__version__}\n")
        raise SystemExit(0)


def root_parser() -> Parser:
    """The parser of what stands before the command, and of its name."""
    parser = Parser(prog="bnbenv", usage="bnbenv [-h] [-V] COMMAND [options]", add_help=True)
    parser.add_argument("-V", "--version", action=_Version, nargs=0, help="show the version and stop")
    add_common(parser)
    parser.add_argument("command", nargs="?", metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def describe_root(parser: Parser) -> None:
    """Give the root parser the words that only its help needs."""
    lines = ["Python environments in which bitsandbytes provably computes on the GPU at hand.", ""]
    for title, commands in GROUPS.items():
        lines.append(f"{title}:")
        lines += [f"  {name:<12}{line}" for name, line in commands.items()]
        lines.append("")
    from bnbenv.cli.wrapping import width_of, wrapped

    parser.description = "\n".join(lines).rstrip()
    width = width_of(sys.stdout) or width_of(sys.stderr) or _WIDTH
    notes = (" ".join(note.split()) for note in _ROOT_NOTES.split("\n\n"))
    parser.epilog = "\n\n".join((_ROOT_EXAMPLES.rstrip(), *(wrapped(note, width) for note in notes)))


def command_parser(command: str, rest: Sequence[str] = ()) -> tuple[Parser, ModuleType]:
    """The parser of one command, and the module that runs it; `rest` is what follows it on the line.

    Raises:
        UsageError: there is no such command.
    """
    if command not in COMMANDS:
        from bnbenv.cli.guidance import unknown_command

        raise unknown_command(command, rest)
    from importlib import import_module

    module = import_module(module_name(command))
    summary = COMMANDS[command]
    parser = Parser(
        prog=f"bnbenv {command}",
        description=summary[0].upper() + summary[1:] + ".",
        epilog=getattr(module, "EPILOG", None),
    )
    module.add_arguments(parser)
    add_common(parser, getattr(module, "JSON_BUT", None))
    return parser, module


def add_common(parser: argparse.ArgumentParser, json_but: str | None = None) -> None:
    """The options that every command takes.

    Args:
        parser: of the command.
        json_but: where its ``--json`` does otherwise.
    """
    group = parser.add_argument_group("common options")
    group.add_argument(
        "--json",
        action="store_true",
        help="print exactly one JSON object on stdout" + (f"; {json_but}" if json_but else ""),
    )
    group.add_argument("-v", "--verbose", action="count", default=0, help="tell more; twice: tell everything")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress, only results and problems")


def split_run(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What `run` reads of its line, and what belongs to the command that it starts, word by word.

    The command begins after the ``--`` that follows the environment's name, or with the first word there
    that is no option.
    """
    place = 0
    for _ in ("the name", "the command"):
        while place < len(words) and words[place].startswith("-") and words[place] != "--":
            place += 1
        if place == len(words) or words[place] == "--":
            break
        place += 1
    else:
        place -= 1
    rest = list(words[place:])
    return list(words[:place]), rest[1:] if rest[:1] == ["--"] else rest


def asking_for_help(argv: Sequence[str]) -> list[str]:
    """The line, where it asks for help in the ways of other tools: ``help create``, ``--help create``."""
    if argv[:1] == ["help"] or (argv[:1] in (["-h"], ["--help"]) and argv[1:2] and argv[1][:1] != "-"):
        about = [word for word in argv[1:] if word[:1] != "-"]
        return [*about[:1], "--help"]
    return list(argv)


def wants_json(argv: Sequence[str]) -> bool:
    """Whether an answer must be JSON, known even where the command line cannot be parsed."""
    for word in argv:
        if word == "--":
            return False
        if word == "--json":
            return True
    return False


def named_command(argv: Sequence[str]) -> str | None:
    """The command that a line names, known even where the line cannot be parsed."""
    for word in argv:
        if not word.startswith("-"):
            return word if word in COMMANDS else None
    return None
