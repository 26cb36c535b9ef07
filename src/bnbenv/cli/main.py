"""The entry point: parse the line, run the command, answer in words or in JSON, return the exit code."""

from __future__ import annotations

import gc
import sys

from bnbenv.cli.parser import (
    asking_for_help,
    command_parser,
    describe_root,
    named_command,
    root_parser,
    split_run,
    wants_json,
)
from bnbenv.cli.signals import exit_code_of, listen
from bnbenv.errors import (
    EXIT_EXTERNAL,
    EXIT_OK,
    EXIT_USAGE,
    BnbenvError,
    Interrupted,
    UsageError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence
    from types import ModuleType
    from typing import NoReturn


def entry() -> NoReturn:
    """The program itself: `main`, and out.

    Taking the interpreter apart, module by module, would cost each command a tenth of its time and gain none:
    what must be closed or deleted has been.
    """
    import os

    code = main()
    try:  # noqa: SIM105 - `contextlib` would cost every start its import
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
    # Windows has exit codes of 32 bits, which a child that `run` started may have handed on.
    os._exit(code - 2**32 if code >= 2**31 else code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    if argv is None:  # the program itself, not a caller in another one
        # A start makes a hundred thousand objects and no garbage: the collector would look in vain.
        gc.set_threshold(100_000, 20, 20)
    try:
        if argv is None:
            listen()
        _open_missing_streams()
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                # A console that cannot show a character gets its number: never a crash over a name. Pipes and
                # files get plain line ends on Windows too: `$(bnbenv path qlora)` would keep the other one.
                stream.reconfigure(errors="backslashreplace", newline=None if stream.isatty() else "\n")
        code = _main(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        return EXIT_OK
    except OSError as error:  # commands answer for their own files: what is left is our output
        _forget_stdout()
        try:  # noqa: SIM105 - `contextlib` would cost every start its import
            sys.stderr.write(f"error: the answer cannot be written: {error.strerror or error}\n")
        except OSError:
            pass
        return EXIT_EXTERNAL
    except KeyboardInterrupt as stop:
        return exit_code_of(stop)
    return code


def _main(words: list[str]) -> int:
    try:
        args, module = _parse(words)
        from bnbenv.cli.dispatch import run
    except SystemExit as stop:  # --help and --version
        return stop.code if isinstance(stop.code, int) else EXIT_OK
    except UsageError as error:
        return _refuse(words, error)
    except KeyboardInterrupt as stop:  # loading takes a moment, and who stops it then is answered too
        return _refuse(words, Interrupted("stopped before anything was done", exit_code=exit_code_of(stop)))
    return run(args, module, words)


def _parse(words: list[str]) -> tuple[Namespace, ModuleType]:
    words = asking_for_help(words)
    root = root_parser()
    if not words or words[0] in {"-h", "--help"}:
        describe_root(root)
    if not words:
        root.print_help(sys.stderr)
        raise SystemExit(EXIT_USAGE)
    args = root.parse_args(words)
    if args.command is None:
        raise UsageError("no command was given", hint="bnbenv --help")
    rest: list[str] = args.arguments
    tail: list[str] | None = None
    if args.command == "run":
        rest, tail = split_run(rest)
    parser, module = command_parser(args.command, rest)
    del args.arguments
    args.typed = tuple(rest)
    try:
        parser.parse_args(rest, args)
    except UsageError:
        if args.command == "run":  # a program's own options are read as ours where it stands for the name
            from bnbenv.cli.guidance import program_on_line

            if (meant := program_on_line(rest, tail or [])) is not None:
                raise meant from None
        raise
    args.tail = tail
    return args, module


def _refuse(words: list[str], error: BnbenvError) -> int:
    from bnbenv.cli.dispatch import render
    from bnbenv.cli.outcome import failure
    from bnbenv.cli.ui import Ui

    render(Ui(json=wants_json(words)), named_command(words) or "error", failure(error))
    return error.exit_code


def _open_missing_streams() -> None:
    # A caller that closed a stream (`>&-`) left `None` in its place; it becomes one that leads nowhere.
    import os

    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - lives as long as we do


def _forget_stdout() -> None:
    # The reader has gone. Python would complain once more when it flushes stdout at exit.
    import os

    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, sys.stdout.fileno())
    except (OSError, ValueError):
        pass
    finally:
        os.close(devnull)
