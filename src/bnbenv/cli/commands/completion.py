"""`completion`: a completion script for a shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.cli.outcome import Outcome
from bnbenv.cli.redact import Verbatim

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")

EPILOG = """\
Examples:
  bnbenv completion bash > ~/.local/share/bash-completion/completions/bnbenv
  bnbenv completion zsh > ~/.zfunc/_bnbenv
  bnbenv completion fish > ~/.config/fish/completions/bnbenv.fish
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
    return whole
