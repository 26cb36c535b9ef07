"""Batches: one question a line in, one answer a line out, in order, streaming."""

from __future__ import annotations

import codecs
import json
import math
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from bnbenv.cli.outcome import Outcome, envelope, failure
from bnbenv.errors import EXIT_OK, BnbenvError, UsageError
from bnbenv.texts import encoding_of

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Iterator

    from bnbenv.cli.ui import Ui


def add_batch(parser: ArgumentParser, what: str) -> None:
    """``--batch``."""
    parser.add_argument(
        "--batch",
        metavar="FILE",
        help=f"answer every line of FILE (`-`: stdin), one JSON object a line: {what}",
    )


def refuse_ignored(args: Namespace, *names: str) -> None:
    """Refuse options that have no meaning beside ``--batch``, since each line tells for itself.

    Raises:
        UsageError: such an option is given; the message names all that are.
    """
    given = [f"`--{name}`" for name in names if getattr(args, name)]
    if given:
        raise UsageError(
            f"{', '.join(given)} cannot be given with `--batch`: every line tells that for itself",
            hint=f"bnbenv {args.command} --help",
        )


def answer_lines(name: str, answer: Callable[[dict[str, Any]], Outcome], ui: Ui) -> int:
    """Answer each line of a file; a bad line is answered with its own error and the rest go on.

    Raises:
        UsageError: the input cannot be read.
    """
    with _lines(name) as stream:
        try:
            for line in _in_utf8(stream):
                if line.strip():
                    ui.answer(_one(line, answer))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"`{name}` cannot be read: {error}", hint="give --batch a text file in UTF-8"
            ) from error
    return EXIT_OK


def _one(line: bytes, answer: Callable[[dict[str, Any]], Outcome]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    try:
        # Decoded here, so that a line that is no text does not take its neighbours with it.
        question = json.loads(line.decode("utf-8-sig"), parse_float=_finite, parse_constant=_finite)
        if not isinstance(question, dict):
            raise UsageError("the line is no JSON object", hint="one object a line")
        if "id" in question:
            told["id"] = question["id"]
        outcome = answer(question)
    except ValueError as error:
        outcome = failure(
            UsageError(f"the line is not JSON in UTF-8: {error}", hint="one JSON object a line")
        )
    except RecursionError:
        outcome = failure(UsageError("the line is nested too deeply", hint="one JSON object a line"))
    except BnbenvError as error:
        outcome = failure(error)
    whole = envelope("", outcome)
    return {**told, "status": whole["status"], "data": whole["data"], "problems": whole["problems"]}


def _finite(text: str) -> float:
    """A number that can be printed again: JSON has neither infinity nor NaN."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number that JSON can tell")
    return number


@contextmanager
def _lines(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = open(name, "rb")  # noqa: PTH123, SIM115 - closed below
    except OSError as error:
        raise UsageError(
            f"`{name}` cannot be read: {error.strerror or error}", hint="give --batch a file, or - for stdin"
        ) from error
    with stream:
        yield stream


def _in_utf8(stream: BinaryIO) -> Iterator[bytes]:
    """The lines in UTF-8; those of a UTF-16 text, whose line ends are two bytes each, are encoded anew."""
    first = stream.readline()
    encoding = encoding_of(first)
    if encoding != "utf-16":
        yield first
        yield from stream
        return
    decoder = codecs.getincrementaldecoder(encoding)()
    text = decoder.decode(first)
    for more in stream:
        text += decoder.decode(more)
        *whole, text = text.split("\n")
        yield from (line.encode() for line in whole)
    yield (text + decoder.decode(b"", final=True)).encode()
