"""`memory --measure`: load the model, train one step, and compare with the estimate."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass
from bnbenv.errors import ExternalError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.workflows.environment import Located
    from bnbenv.workflows.memory import Weighed
    from bnbenv.workflows.voice import Voice

_STALL = 1800.0  # seconds; a large model loads slowly from a slow disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What was measured, beside what had been estimated.

    Attributes:
        load, working: measured bytes at the worst moment.
        tensors: parameter → bytes with its scales.
    """

    load: int
    working: int | None
    estimated_load: int
    estimated_working: int
    tensors: Mapping[str, int]

    @property
    def document(self) -> dict[str, Any]:
        """As `memory --json` shows it."""
        return {
            "load_bytes": self.load,
            "working_bytes": self.working,
            "load_error": self.estimated_load / self.load - 1,
            "working_error": None if self.working is None else self.estimated_working / self.working - 1,
        }

    @property
    def sentence(self) -> str:
        """In words."""
        error = self.document
        text = f"measured: {self.load / 2**30:.2f} GiB while loading (estimate {error['load_error']:+.0%})"
        if self.working is not None:
            text += f", {self.working / 2**30:.2f} GiB at work (estimate {error['working_error']:+.0%})"
        return text


def measure(
    weighed: Weighed, located: Located, voice: Voice, environ: Mapping[str, str], *, step: bool = True
) -> Compared:
    """Run the model in an environment, in a process of its own.

    Raises:
        UsageError: there are no weights to load, or the system does not tell what a process took at most.
        ExternalError: code ``tool-failed``; the process failed, or ran out of memory.
    """
    from bnbenv.memory.checkpoint import require_weights
    from bnbenv.selftest.child import watch

    if sys.platform == "win32":  # nor is there Python's module `resource`, by which the script asks
        raise UsageError(
            "`--measure` asks the system what a process took at most, in a way that Windows does not have",
            hint="measure under Linux or in WSL2",
        )
    if weighed.checkpoint.directory is None:
        raise UsageError(
            f"`{weighed.model}` is a configuration without weights: there is nothing to load",
            hint="name the model's directory",
            code="bad-model",
        )
    require_weights(weighed.checkpoint)
    use = weighed.estimate.use
    request = {
        "model": str(weighed.checkpoint.directory.resolve()),
        "device": "cpu" if use.cpu else "gpu",
        "dtype": use.dtype,
        "quantization": use.quantisation.scheme,
        "double": use.quantisation.double,
        "trains": use.trains,
        "trainer": use.trainer,
        "sequence": use.sequence,
        "batch": use.batch,
        "rank": use.rank,
        "dropout": use.dropout,
        "checkpointing": use.checkpointing,
        "optimiser": use.optimiser,
        "step": step,
    }
    script = Path(__file__).resolve().parents[1] / "memory" / "measure_script.py"
    voice.progress("loading the model" + (", and one step of work" if step else ""))
    with tempfile.TemporaryDirectory(prefix="bnbenv-") as scratch:
        asked, answered = Path(scratch, "request.json"), Path(scratch, "result.json")
        asked.write_text(json.dumps(request), encoding="utf-8")
        ended = watch(
            [str(located.python), "-I", "-B", str(script), str(asked), str(answered)],
            events=answered,
            environ={**environ, "HF_HUB_OFFLINE": "1"},
            cwd=Path(scratch),
            stall=_STALL,
            log=Path(scratch, "log"),
        )
        if ended.returncode or not answered.is_file():
            raise ExternalError(
                f"the model could not be measured: the process {ended.how}",
                hint="bnbenv doctor, or a shorter --seq",
                code="tool-failed",
            )
        result = json.loads(answered.read_text(encoding="utf-8"))
    return Compared(
        load=result["load"],
        working=result.get("working"),
        estimated_load=weighed.estimate.at("load"),
        estimated_working=max(
            weighed.estimate.at("load"), weighed.estimate.at(weighed.estimate.working_phase)
        ),
        tensors=result["tensors"],
    )
