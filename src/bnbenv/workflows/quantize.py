"""`quantize`: write a quantised checkpoint file by file, in bounded memory, and compare the models."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.dataclass import dataclass
from bnbenv.env import durable, locking
from bnbenv.errors import ExternalError, Interrupted, UsageError
from bnbenv.words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnbenv.memory.checkpoint import Checkpoint
    from bnbenv.memory.storage import Quantisation
    from bnbenv.workflows.environment import Located
    from bnbenv.workflows.voice import Voice

# What is being done to a directory, until it is done; whoever finds it there may go on.
JOURNAL = ".bnbenv-quantize.json"
# Held by bnbenv and by the process that quantises, which outlives a bnbenv that is killed.
LOCK = ".bnbenv-quantize.lock"
_PARTIAL = ".partial"
_STALL = 1800.0  # seconds without a word; one file of a large model takes minutes
# Files of a model that are neither weights nor its configuration, and never code.
_COMPANIONS = ("*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken")
_SPARE = 100_000_000  # bytes that stay free
# Above it the written model is not the one that transformers quantises while loading.
_SAME = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeRequest:
    """What to write.

    Attributes:
        dtype: of what is not quantised.
        logits: compare the scores of both models at the end, which loads them one after the other.
    """

    source: Checkpoint
    out: Path
    quantisation: Quantisation
    dtype: str
    logits: bool = True
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """The answer of `quantize`.

    Attributes:
        layers: how many were quantised.
        bytes: of the tensors written, or to be written.
        worst: largest error of the sampled blocks, as a share of what the type's definition allows.
        distance: largest difference of two scores, ``None`` where they were not compared.
        peak: bytes of memory at most, while quantising.
        kept: files that an earlier, interrupted run had finished.
    """

    out: Path
    layers: int
    bytes: int
    written: bool
    worst: float | None = None
    distance: float | None = None
    peak: int | None = None
    kept: tuple[str, ...] = ()


def quantize(
    request: QuantizeRequest, located: Located, voice: Voice, environ: Mapping[str, str], *, yes: bool = False
) -> Quantized:
    """Plan, write, verify. What was finished before an interruption stays and is not done again.

    Raises:
        UsageError: the model or the output cannot be used; nothing was written.
        ExternalError: the process failed, the disk is full, or what was written is wrong.
        Interrupted: the user said no.
    """
    from bnbenv.memory.checkpoint import require_weights
    from bnbenv.memory.quantized_size import quantised_size, refuse_quantised

    require_weights(request.source)
    refuse_quantised(request.source)
    journal = _journal(request)
    _refuse_occupied(request, journal)
    runner = _Runner(request, located, environ)
    voice.progress("asking transformers which layers it quantises")
    planned = runner.run("plan")[-1]
    if planned["event"] == "missing":
        raise UsageError(
            f"`{located.directory}` has no {planned['package']}, and quantising needs it",
            hint="name an environment that has it: --env qlora",
        )
    if planned["event"] == "refused":
        raise UsageError(
            f"transformers makes no model of `{request.source.directory}`: {planned['why']}",
            hint="look at its config.json, or name an environment with another transformers: --env ENV",
            code="bad-model",
        )
    layers = set(planned["layers"])
    stored = {tensor.name.removesuffix(".weight") for tensor in request.source.tensors}
    quantised = layers & stored
    if not quantised:
        raise UsageError(
            f"no layer of `{request.source.directory}` would be quantised",
            hint=f"{shlex.join(['bnbenv', 'memory', str(request.source.directory)])} "
            "shows what stays as it is, and why",
            code="bad-model",
        )
    size = quantised_size(request.source, quantised, request.quantisation, request.dtype)
    before = sum(tensor.bytes for tensor in request.source.tensors)
    voice.progress(f"{len(quantised)} layers: {before / 1e9:.2f} GB become {size / 1e9:.2f} GB")
    if request.dry_run:
        return Quantized(out=request.out, layers=len(quantised), bytes=size, written=False)
    _refuse_too_small(request, size)
    if not voice.confirm(f"write {size / 1e9:.2f} GB to `{request.out}`?", yes=yes):
        raise Interrupted("nothing was written")
    with durable.told(request.out, "create"):
        request.out.mkdir(parents=True, exist_ok=True)
    with locking.hold(request.out / LOCK, voice.progress, command="bnbenv quantize") as held:
        _refuse_occupied(request, journal)  # another one may have finished while this one waited
        done = _write(request, runner, journal, voice, held, layers=len(quantised), size=size)
        (request.out / LOCK).unlink(missing_ok=True)
    return done


def _write(
    request: QuantizeRequest,
    runner: _Runner,
    journal: Mapping[str, Any],
    voice: Voice,
    held: locking.Hold,
    *,
    layers: int,
    size: int,
) -> Quantized:
    with durable.told(request.out, "write"):
        durable.write_whole(request.out / JOURNAL, json.dumps(journal, indent=1).encode())
        for leftover in request.out.glob(f"*{_PARTIAL}"):
            leftover.unlink()
    events = runner.run("quantize", voice=voice, pass_fds=held.pass_fds)
    written = [event for event in events if event["event"] == "written"]
    worst = max((event["worst"] for event in written), default=None)
    if worst is not None and worst > 1:
        raise ExternalError(
            f"what bitsandbytes wrote is not within the definition of {request.quantisation.scheme} "
            f"(error {worst:.2f} of what is allowed); `{request.out}` must not be used",
            hint=f"{shlex.join(['bnbenv', 'verify', runner.located.name])}, then remove `{request.out}`",
            code="self-test-failed",
        )
    _write_companions(request, events[-1]["quantization"])
    distance = _compare_logits(runner, voice) if request.logits else None
    (request.out / JOURNAL).unlink()
    return Quantized(
        out=request.out,
        layers=layers,
        bytes=size,
        written=True,
        worst=worst,
        distance=distance,
        peak=max((event["peak"] for event in written if event["peak"] is not None), default=None),
        kept=tuple(event["file"] for event in events if event["event"] == "kept"),
    )


def _journal(request: QuantizeRequest) -> dict[str, Any]:
    """What makes two runs the same: settings, and the source's files by size and time."""
    directory = _directory(request.source)
    files = {
        name: [(directory / name).stat().st_size, (directory / name).stat().st_mtime_ns]
        for name in request.source.files
    }
    settings = {
        "schema": 1,
        "source": str(directory.resolve()),
        "type": request.quantisation.scheme,
        "double": request.quantisation.double,
        "dtype": request.dtype,
        "config": hashlib.sha256(json.dumps(request.source.config, sort_keys=True).encode()).hexdigest(),
    }
    return {**settings, "files": files}


def _directory(checkpoint: Checkpoint) -> Path:
    assert checkpoint.directory is not None, "only a directory has weights"  # noqa: S101 - see require_weights
    return checkpoint.directory


def _refuse_occupied(request: QuantizeRequest, journal: Mapping[str, Any]) -> None:
    """The output is new, empty, or an interrupted run of the very same request.

    Raises:
        UsageError: code ``path-occupied``.
    """
    out = request.out
    if out.resolve() == _directory(request.source).resolve():
        raise UsageError(
            "the output is the model itself", hint="name another directory", code="path-occupied"
        )
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"`{out}` is a file", hint="name a directory", code="path-occupied")
    if not any(path.name != LOCK for path in out.iterdir()):
        return
    try:
        found = json.loads((out / JOURNAL).read_bytes())
    except (OSError, ValueError, RecursionError):
        found = None
    if found is None:
        raise UsageError(
            f"`{out}` is not empty, and nothing in it is left to be finished",
            hint="name a new directory",
            code="path-occupied",
        )
    if found != dict(journal):
        raise UsageError(
            f"`{out}` holds the beginning of another quantisation: the model or the settings were different",
            hint=f"remove `{out}`, or name a new directory",
            code="path-occupied",
        )


def _refuse_too_small(request: QuantizeRequest, size: int) -> None:
    """Stop before a disk fills up.

    Raises:
        ExternalError: code ``disk-full``.
    """
    place = request.out.absolute()
    while not place.exists():
        place = place.parent
    done = sum(path.stat().st_size for path in request.out.glob("*.safetensors"))
    free = shutil.disk_usage(place).free
    if free < size - done + _SPARE:
        raise ExternalError(
            f"{(size - done) / 1e9:.2f} GB go to `{request.out}`, and {free / 1e9:.2f} GB are free there",
            hint="make room, or name a directory on another disk",
            code="disk-full",
        )


def _write_companions(request: QuantizeRequest, settings: Mapping[str, Any]) -> None:
    """The tokenizer, the index, and last the configuration, so that only a whole model looks like one."""
    from bnbenv.memory.checkpoint import CONFIG, INDEX
    from bnbenv.memory.safetensors import read_header

    source, out = _directory(request.source), request.out
    with durable.told(out, "write"):
        for pattern in _COMPANIONS:
            for path in source.glob(pattern):
                if path.name not in {CONFIG, INDEX} and path.is_file():
                    durable.write_whole(out / path.name, path.read_bytes())
        if len(request.source.files) > 1 or (source / INDEX).is_file():
            places = {
                tensor.name: name for name in request.source.files for tensor in read_header(out / name)
            }
            total = sum(tensor.bytes for name in request.source.files for tensor in read_header(out / name))
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
            durable.write_whole(out / INDEX, (json.dumps(index, indent=1) + "\n").encode())
        config = {**request.source.config, "dtype": request.dtype, "quantization_config": dict(settings)}
        durable.write_whole(out / CONFIG, (json.dumps(config, indent=1) + "\n").encode())


def _compare_logits(runner: _Runner, voice: Voice) -> float:
    """Both ways to the quantised model must lead to the same scores.

    Raises:
        ExternalError: code ``self-test-failed``.
    """
    voice.progress("loading both: quantised while loading, and as written")
    try:
        event = runner.run("logits")[-1]
    except ExternalError:
        _hide(runner.request.out)
        raise
    distance: float = event["distance"]
    if not event["finite"] or distance > _SAME * max(1.0, event["largest"]):
        _hide(runner.request.out)
        raise ExternalError(
            "the written model answers otherwise than the one quantised while loading: "
            f"scores differ by {distance:.3g}",
            hint=f"{shlex.join(['bnbenv', 'verify', runner.located.name])}, and remove what was written",
            code="self-test-failed",
        )
    return distance


def _hide(out: Path) -> None:
    """What is not proven must not look like a model."""
    from bnbenv.memory.checkpoint import CONFIG

    (out / CONFIG).unlink(missing_ok=True)


class _Runner:
    """Runs the script in the environment, one action at a time."""

    def __init__(self, request: QuantizeRequest, located: Located, environ: Mapping[str, str]) -> None:
        self.request, self.located, self.environ = request, located, environ

    def run(
        self, action: str, *, voice: Voice | None = None, pass_fds: Sequence[int] = ()
    ) -> list[dict[str, Any]]:
        """The events of one action.

        Raises:
            ExternalError: code ``tool-failed``, or ``disk-full``.
        """
        from bnbenv.selftest.child import watch

        package = Path(__file__).resolve().parents[1]
        request = self.request
        document = {
            "action": action,
            "model": str(_directory(request.source).resolve()),
            "out": str(request.out.absolute()),
            "files": list(request.source.files),
            "type": request.quantisation.scheme,
            "double": request.quantisation.double,
            "dtype": request.dtype,
            "reference": str(package / "selftest" / "script.py"),
        }
        with tempfile.TemporaryDirectory(prefix="bnbenv-") as scratch:
            asked, events, log = (Path(scratch, name) for name in ("request.json", "events", "log"))
            asked.write_text(json.dumps(document), encoding="utf-8")
            events.touch()
            if voice is not None:
                voice.progress(f"quantising {counted(len(request.source.files), 'file')}")
            script = package / "memory" / "quantize_script.py"
            ended = watch(
                [str(self.located.python), "-I", "-B", str(script), str(asked), str(events)],
                events=events,
                environ={**self.environ, "HF_HUB_OFFLINE": "1"},
                cwd=Path(scratch),
                stall=_STALL,
                log=log,
                pass_fds=pass_fds,
            )
            if ended.returncode:
                full = "No space left" in ended.stderr
                raise ExternalError(
                    f"quantising stopped: the process {ended.how}",
                    hint="type the command again to go on from the last finished file"
                    if action == "quantize"
                    else shlex.join(["bnbenv", "doctor", self.located.name]),
                    code="disk-full" if full else "tool-failed",
                )
            return [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
