"""`completion`: a completion script for a shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.cli.outcome import Outcome
from bnbenv.cli.redact import Verbatim

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")

FILES = ("FILE", "PYTHON", "ENV", "MODEL", "WORD", "-- COMMAND")
"""What stands for a file in the help, or for a file or a directory."""
DIRECTORIES = ("DIR", "LOCKDIR", "OUT")
_PLACE = "NAME"  # as an argument a name or the directory of an environment; as a value of an option no place

EPILOG = """\
Examples:
  mkdir -p ~/.local/share/bash-completion/completions &&
    bnbenv completion bash > ~/.local/share/bash-completion/completions/bnbenv
  mkdir -p ~/.zfunc && bnbenv completion zsh > ~/.zfunc/_bnbenv
  mkdir -p ~/.config/fish/completions && bnbenv completion fish > ~/.config/fish/completions/bnbenv.fish

zsh reads it where `fpath+=~/.zfunc` stands in ~/.zshrc before `compinit`. The scripts for tcsh and PowerShell
say themselves where they go; that for PowerShell has been parsed, but never been tried there.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")


def run(args: Namespace, ui: Ui) -> Outcome:
    """Print the script."""
    del ui
    import shtab

    script = Verbatim(shtab.complete(whole_parser(), shell=args.shell))
    return Outcome(data={"shell": args.shell, "script": script}, text=script)


def whole_parser() -> ArgumentParser:
    """The grammar of all commands in one tree, as the completion needs it."""
    from importlib import import_module

    from bnbenv.cli.commands import COMMANDS, module_name
    from bnbenv.cli.parser import Parser, add_common

    whole = Parser(prog="bnbenv")
    whole.add_argument("--version", action="store_true", help="show the version and stop")
    add_common(whole)
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", prog="bnbenv")
    for name, line in COMMANDS.items():
        parser = commands.add_parser(name, help=line, description=line)
        import_module(module_name(name)).add_arguments(parser)
        add_common(parser)
        _complete_paths(parser)
    return whole


def _complete_paths(parser: ArgumentParser) -> None:
    """Let shells complete what names a file or a directory; the word that stands for it tells which."""
    import shtab

    for action in parser._actions:  # noqa: SLF001 - argparse lists them nowhere else
        if action.metavar in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar in DIRECTORIES or (action.metavar == _PLACE and not action.option_strings):
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
