"""The answer about a text: its cause or `unknown`, the lines that show it, and what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass
from bnbenv.doctor.commands import commands_for
from bnbenv.doctor.derived import derive
from bnbenv.doctor.facts import stated_facts
from bnbenv.doctor.reason import UNKNOWN, causes_of
from bnbenv.doctor.scan import Scanner
from bnbenv.doctor.text import blocks_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bnbenv.doctor.facts import Facts
    from bnbenv.doctor.reason import Named
    from bnbenv.doctor.scan import Hit, Seen
    from bnbenv.judge.stack import Finding
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import Cause, Question

PARTS = ("capabilities", "causes", "gpus", "symptoms", "implications", "precedences", "questions")
"""The parts of the matrix that a diagnosis reads beside those of the judge."""

_SHOWN = 8
_FACTS = (
    "torch", "torch_cuda", "torch_hip", "bitsandbytes", "python", "transformers", "accelerate", "peft", "trl",
    "triton", "numpy", "driver", "driver_cuda", "toolkit", "rocm", "glibc", "cuda_available",
    "model", "gpu_memory", "sequence", "batch", "rank",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A line of the text, by its number from 1, as it was understood."""

    line: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A cause that the text shows.

    Attributes:
        score: from 0 to 100.
        rules: the names of the symptoms that point to it.
        findings: what the judge said of the versions stated.
    """

    code: str
    score: int
    evidence: tuple[Evidence, ...]
    cause: Cause
    rules: tuple[str, ...]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What a text shows.

    Attributes:
        suspects: the answer first; empty where the cause is unknown.
        facts: what the text states.
        symptoms: lines that were seen and do not decide, where the cause is unknown.
        questions: what is missing, the most telling first.
        lines: how many lines were read.
    """

    suspects: tuple[Suspect, ...]
    facts: Facts
    symptoms: tuple[Evidence, ...]
    questions: tuple[Question, ...]
    lines: int

    @property
    def cause(self) -> str:
        """The id of the cause, or ``unknown``."""
        return self.suspects[0].code if self.suspects else UNKNOWN


def read_text(chunks: Iterable[bytes], matrix: Matrix) -> tuple[Seen, Facts]:
    """The symptoms and facts of a text, which is read once.

    Args:
        chunks: the bytes of the text, cut anywhere.
        matrix: with `PARTS` and those of the judge loaded.
    """
    seen = Scanner(matrix.symptoms).scan(blocks_of(chunks))
    return seen, derive(stated_facts(seen, {row.id: row for row in matrix.symptoms}, matrix), matrix)


def diagnose(chunks: Iterable[bytes], matrix: Matrix) -> Diagnosis:
    """Read a text and name its cause; arguments as of `read_text`."""
    seen, facts = read_text(chunks, matrix)
    causes = {row.id: row for row in matrix.causes}
    text = _texts(seen)
    named = causes_of(seen, facts, matrix)
    suspects = tuple(_suspect(entry, causes[entry.code], text) for entry in named)
    telling = [row.id for row in matrix.symptoms if row.kind in ("failure", "symptom")]
    shared = tuple(Evidence(line=hit.line, text=hit.text) for hit in _first_hits(seen, telling))
    return Diagnosis(
        suspects=suspects,
        facts=facts,
        symptoms=() if suspects else shared[:_SHOWN],
        questions=_missing(facts, matrix.questions, suspects, failing=bool(shared)),
        lines=seen.lines,
    )


def _texts(seen: Seen) -> dict[int, str]:
    texts: dict[int, str] = {}
    for hits in seen.hits.values():
        for hit in hits:
            if len(hit.text) > len(texts.get(hit.line, "")):
                texts[hit.line] = hit.text
    return texts


def _first_hits(seen: Seen, names: Iterable[str]) -> list[Hit]:
    lines: dict[int, Hit] = {}
    for name in names:
        for hit in seen.hits.get(name, ())[:1]:
            lines.setdefault(hit.line, hit)
    return [lines[number] for number in sorted(lines)]


def _suspect(entry: Named, cause: Cause, text: Mapping[int, str]) -> Suspect:
    return Suspect(
        code=entry.code,
        score=entry.score,
        evidence=tuple(Evidence(line=line, text=text[line]) for line in entry.lines[:_SHOWN] if line in text),
        cause=cause,
        rules=entry.rules,
        findings=entry.findings,
    )


def _missing(
    facts: Facts, questions: Iterable[Question], suspects: tuple[Suspect, ...], *, failing: bool
) -> tuple[Question, ...]:
    """The questions whose facts the text does not state; none where the cause is plain."""
    if suspects and suspects[0].score >= 70:
        return ()
    return tuple(
        row
        for row in questions
        if facts.derived.keys() >= set(row.all)
        and not facts.derived.keys() & set(row.none)
        and not _stated(row.fact, facts, failing=failing)
    )


def _stated(fact: str, facts: Facts, *, failing: bool) -> bool:
    match fact:
        case "gpu":
            return bool(facts.gpus)
        case "os":
            return any(name.startswith("os:") for name in facts.derived)
        case "library":
            return bool(facts.stated.get("missing_library") or facts.stated.get("loaded_library"))
        case "environment":
            return bool(facts.stated.get("override_name") or facts.stated.get("environment"))
        case "traceback":
            return failing and bool(facts.stated.get("running_path"))
        case _:
            return fact in facts.stated


def diagnosis_document(diagnosis: Diagnosis) -> dict[str, Any]:
    """The ``data`` of `diagnose`."""
    return {
        "cause": diagnosis.cause,
        "causes": [_suspect_document(suspect, diagnosis.facts) for suspect in diagnosis.suspects],
        "facts": facts_document(diagnosis.facts),
        "symptoms": [{"line": entry.line, "text": entry.text} for entry in diagnosis.symptoms],
        "missing": [_question(row) for row in diagnosis.questions],
        "lines": diagnosis.lines,
    }


def _question(row: Question) -> str:
    return f"{row.ask} `{row.command}`" if row.command else row.ask


def _suspect_document(suspect: Suspect, facts: Facts) -> dict[str, Any]:
    commands = [
        command for finding in suspect.findings if finding.remedy for command in finding.remedy.commands
    ]
    commands += commands_for(suspect.cause, facts)
    return {
        "code": suspect.code,
        "score": suspect.score,
        "evidence": [{"line": entry.line, "text": entry.text} for entry in suspect.evidence],
        "remedy": {"summary": suspect.cause.remedy, "commands": list(dict.fromkeys(commands))},
        "definition": suspect.cause.definition,
        "judged": [finding.summary for finding in suspect.findings],
        "rules": list(suspect.rules),
    }


def facts_document(facts: Facts) -> dict[str, Any]:
    """The facts that a text states, each with its most trusted value."""
    document: dict[str, Any] = {name: value for name in _FACTS if (value := facts.best(name)) is not None}
    if facts.gpus:
        document["gpu"] = [gpu.name for gpu in facts.gpus]
    os = next((name.partition(":")[2] for name in facts.derived if name.startswith("os:")), None)
    if os:
        document["os"] = os
    if "arch:aarch64" in facts.derived:
        document["arch"] = "aarch64"
    for name in ("wsl", "tegra"):
        if name in facts.derived:
            document[name] = True
    if library := facts.best("missing_library"):
        document["library"] = library
    if override := facts.best("override_name"):
        document["override"] = override
    return document
