"""The reply that a maintainer would post under a report, in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.doctor.diagnosis import diagnosis_document

if TYPE_CHECKING:
    from typing import Any

    from bnbenv.doctor.diagnosis import Diagnosis

_MOST_QUESTIONS = 6


def reply(diagnosis: Diagnosis) -> str:
    """Cause, evidence and fix; or what was seen and the questions to ask."""
    data = diagnosis_document(diagnosis)
    if not data["causes"]:
        return _ask(data)
    first, *others = data["causes"]
    sure = first["score"] >= 70
    lines = [
        f"**{'Cause' if sure else 'Most likely cause'}: `{first['code']}`.** {first['definition']}",
        "",
        "This is what shows it:",
        "",
        *_quoted(first["evidence"]),
    ]
    if first["judged"]:
        lines += ["", "By the contents of the releases named:", ""]
        lines += [f"- {summary}" for summary in first["judged"]]
    lines += ["", f"**Fix.** {first['remedy']['summary']}"]
    if first["remedy"]["commands"]:
        lines += ["", "```sh", *first["remedy"]["commands"], "```"]
    if others:
        named = ", ".join(f"`{other['code']}`" for other in others[:3])
        lines += ["", f"Also in the text, and to be looked at after that: {named}."]
    if data["missing"]:
        lines += ["", "To be sure, please add:", "", *_questions(data)]
    return "\n".join(lines)


def _ask(data: dict[str, Any]) -> str:
    if data["symptoms"]:
        lines = [
            "The text does not tell the cause yet: these lines have several, and say nothing alone.",
            "",
            *_quoted(data["symptoms"]),
        ]
    else:
        lines = ["The text shows no failure of bitsandbytes or of what it stands on."]
    if data["missing"]:
        lines += ["", "Please add:", "", *_questions(data)]
    return "\n".join(lines)


def _quoted(evidence: list[dict[str, Any]]) -> list[str]:
    return [
        "```text",
        *(f"line {entry['line']}: {entry['text'].replace('```', '` ` `')}" for entry in evidence),
        "```",
    ]


def _questions(data: dict[str, Any]) -> list[str]:
    return [f"{number}. {question}" for number, question in enumerate(data["missing"][:_MOST_QUESTIONS], 1)]
