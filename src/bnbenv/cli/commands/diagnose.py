"""`diagnose`: name the cause that a log shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bnbenv.cli.batch import add_batch, answer_lines
from bnbenv.cli.outcome import Outcome
from bnbenv.cli.spelling import spelt
from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui
    from bnbenv.doctor.diagnosis import Diagnosis

JSON_BUT = "with `--batch` one a line"
EPILOG = """\
Examples:
  bnbenv diagnose train.log
  python train.py 2>&1 | bnbenv diagnose -
  bnbenv diagnose issue.txt --format markdown
  bnbenv diagnose --batch reports.jsonl

Reads text only: a log, a traceback, a notebook, the body of an issue, of any size and encoding. Answers
`unknown`, with the questions to ask, where the text does not tell one cause from another. Most of them are
answered by `bnbenv report`, which it reads too. Exit 0 either way.
"""


_SEVERAL = 4  # questions from which on one command for all is told


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="the text; `-` or none: standard input")
    parser.add_argument(
        "--format",
        choices=("text", "markdown"),
        default="text",
        help="markdown: the reply to post under the report (default: text)",
    )
    add_batch(parser, "id, text")


def run(args: Namespace, ui: Ui) -> Outcome | int:
    """Diagnose it."""
    from bnbenv.doctor.diagnosis import diagnosis_document
    from bnbenv.workflows.diagnose import diagnose_file, diagnose_text, load_rules

    if args.batch and args.file:
        raise UsageError("`diagnose` takes a file or `--batch`, not both", hint="bnbenv diagnose --help")
    matrix = load_rules()
    if args.batch:

        def answer(question: dict[str, Any]) -> Outcome:
            text = question.get("text")
            if not isinstance(text, str):
                raise UsageError("`text` is no text", hint='such as {"id": "1", "text": "the log"}')
            return Outcome(data=diagnosis_document(diagnose_text(text, matrix)))

        return answer_lines(args.batch, answer, ui)
    diagnosis = diagnose_file(args.file or "-", matrix)
    shown = _markdown(diagnosis) if args.format == "markdown" else _text(diagnosis, ui)
    return Outcome(data=diagnosis_document(diagnosis), text=shown)


def _text(diagnosis: Diagnosis, ui: Ui) -> str:
    from bnbenv.doctor.diagnosis import diagnosis_document

    data = diagnosis_document(diagnosis)
    colour = "yellow" if data["cause"] == "unknown" else "red"
    lines = [f"cause: {ui.paint(data['cause'], colour, 'bold')}"]
    for number, cause in enumerate(data["causes"]):
        if number:
            lines.append(f"also possible: {cause['code']} (score {cause['score']})")
            lines += [f"  line {entry['line']}: {entry['text']}" for entry in cause["evidence"][:2]]
            continue
        lines.append(cause["definition"])
        lines += [f"  line {entry['line']}: {entry['text']}" for entry in cause["evidence"]]
        lines += [f"  {summary}" for summary in cause["judged"]]
        lines.append(f"remedy: {cause['remedy']['summary']}")
        lines += [f"  {spelt(command)}" for command in cause["remedy"]["commands"]]
    if not data["lines"]:
        return "\n".join([*lines, "there was no text to read"])
    if data["cause"] == "unknown":
        lines.append(
            "the text shows a failure, but not which of several causes it has"
            if data["symptoms"]
            else "the text shows no failure that is known here"
        )
        lines += [f"  line {entry['line']}: {entry['text']}" for entry in data["symptoms"]]
    if data["facts"]:
        told = (
            f"{name} {', '.join(value) if isinstance(value, list) else value}"
            for name, value in data["facts"].items()
        )
        lines.append(ui.paint("stated: " + "; ".join(told), "dim"))
    if data["missing"]:
        lines.append("missing:")
        lines += [f"  {question}" for question in data["missing"]]
        if len(data["missing"]) >= _SEVERAL:
            lines.append("most of it at once, on that machine: bnbenv report")
    return "\n".join(lines)


def _markdown(diagnosis: Diagnosis) -> str:
    from bnbenv.doctor.reply import reply

    return reply(diagnosis)
