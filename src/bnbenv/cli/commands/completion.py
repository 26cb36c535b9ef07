"""`completion`: a completion script for a shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.cli.outcome import Outcome
from bnbenv.cli.redact import Verbatim

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")

FILES = ("FILE", "PYTHON", "MODEL", "WORD", "-- COMMAND")
"""What stands for a file in the help, or for a file or a directory."""
DIRECTORIES = ("DIR", "LOCKDIR", "OUT")
ENVIRONMENT = "ENV"
"""What stands for an environment, by its name, its directory or its interpreter."""
_PLACE = "NAME"  # as an argument an environment as well; as a value of an option something else
_PROFILE = "PROFILE"

# bash's function is called so that shtab takes what it prints for file names, and bash quotes them.
# tcsh completes from one source alone.
_ENVIRONMENTS = {
    "bash": "_bnbenv_environments_or_files",
    "zsh": "_bnbenv_environments_or_files",
    "fish": "(bnbenv list --names 2>/dev/null; __fish_complete_path (commandline -ct))",
    "tcsh": "f",
    "powershell": "_bnbenv_environments_or_files",
}
_PREAMBLE = {
    "bash": """\
_bnbenv_environments_or_files() {
  local name
  while IFS= read -r name; do
    [[ $name != "$1"* ]] || printf '%s\\n' "$name"
  done < <(bnbenv list --names 2>/dev/null)
  _shtab_compgen_files "$1"
}""",
    "zsh": """\
_bnbenv_environments_or_files() {
  local expl found=1
  local -a names=(${(f)"$(bnbenv list --names 2>/dev/null)"})
  _wanted environments expl environment compadd -a names && found=0
  _files && found=0
  return found
}""",
    "powershell": """\
function _bnbenv_environments_or_files {
  param([string]$WordToComplete)
  @(bnbenv list --names 2>$null) | Where-Object { $_ -like "$WordToComplete*" }
  _shtab_powershell_compgen_files $WordToComplete
}""",
}

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

    before = _PREAMBLE.get(args.shell, "")
    script = Verbatim(shtab.complete(whole_parser(), shell=args.shell, preamble=before))
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
        module = import_module(module_name(name))
        module.add_arguments(parser)
        add_common(parser, getattr(module, "JSON_BUT", None))
        _complete_words(parser)
    return whole


def _complete_words(parser: ArgumentParser) -> None:
    """Let shells complete files, directories, environments and profiles, by the word that stands for them."""
    import shtab

    from bnbenv.matrix.load import load

    for action in parser._actions:  # noqa: SLF001 - argparse lists them nowhere else
        if action.metavar in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar in DIRECTORIES:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.metavar == ENVIRONMENT or (action.metavar == _PLACE and not action.option_strings):
            action.complete = _ENVIRONMENTS  # type: ignore[attr-defined]
        elif action.metavar == _PROFILE and action.choices is None:
            action.choices = tuple(row.name for row in load("profiles").profiles)
