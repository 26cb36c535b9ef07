"""Findings as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bnbenv.cli.spelling import spelt

if TYPE_CHECKING:
    from bnbenv.cli.ui import Ui

_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


def findings_text(findings: list[dict[str, Any]], ui: Ui) -> list[str]:
    """Findings, a few lines each."""
    lines = []
    for finding in findings:
        lines.append(
            f"{ui.paint(finding['severity'], _COLOURS[finding['severity']], 'bold')}: {finding['summary']}"
        )
        lines += [f"  {evidence}" for evidence in finding["evidence"]]
        if remedy := finding["remedy"]:
            lines += [f"  {remedy['summary']}"] if remedy["summary"] else []
            lines += [f"    {spelt(command)}" for command in remedy["commands"]]
    return lines
