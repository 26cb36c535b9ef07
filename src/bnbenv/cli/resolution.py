"""Lines of the judge's answers that `resolve`, `check` and `why-not` have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnbenv.cli.ui import Ui


def indexes_text(data: dict[str, Any], ui: Ui) -> list[str]:
    """What the answer takes for granted of the indexes."""
    how = {
        "assumed": "every configured index is believed to answer",
        "remembered": "indexes are believed to be as they were found less than a day ago",
    }
    left_out = data["without_indexes"]
    return [
        *([f"without the indexes {', '.join(left_out)}"] if left_out else []),
        ui.paint(f"matrix {data['matrix']}; nothing was asked of the network: {how[data['indexes']]}", "dim"),
    ]


def not_taken_text(row: dict[str, Any]) -> str:
    """Why one build is not taken that no rule rejects, in a line."""
    return f"torch {row['torch']} ({row['build']}): {row['summary']}"


def gpu_text(gpu: dict[str, Any]) -> str:
    """How one GPU is served, in a line."""
    capability = gpu["compute_capability"]
    where = gpu.get("gfx") or (f"compute capability {capability}" if capability else "this GPU")
    return f"{where}: torch {gpu['torch'] or 'nothing'}, bitsandbytes {gpu['bitsandbytes'] or 'nothing'}"
