"""Runs the self-test in an environment: one process per device, and what its end means."""

from __future__ import annotations

import contextlib
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from bnbenv.errors import EnvironmentProblem
from bnbenv.selftest import child, decide, faults, imports, variables
from bnbenv.selftest.events import Story, crashed, read_events
from bnbenv.selftest.launcher import is_own
from bnbenv.selftest.verdict import Check, Device, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from bnbenv.matrix.rows import KnownFault
    from bnbenv.selftest.verdict import Level

LAUNCHER = Path(__file__).with_name("launcher.py")
SCRIPT = Path(__file__).with_name("script.py")
TRAIN_SCRIPT = Path(__file__).with_name("train_script.py")
_TORCH_DEVICE = {"cpu": "cpu", "cuda": "cuda", "rocm": "cuda", "xpu": "xpu", "mps": "mps"}
_RESTARTS = 3  # after a crash the rest of the checks still runs, in a fresh process
STALL = 300.0  # seconds without an event: a first import from a network file system is slow
_CONTEXT_LOST = 3  # the script's exit code when the device must be opened anew
_POLL = 0.1
_FORGOTTEN = 30 * 86400.0  # seconds without use after which compiled sources leave the store


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What every process of one self-test has in common."""

    python: Path
    environ: Mapping[str, str]
    cwd: Path
    scratch: Path
    stall: float
    script: Path
    train_script: Path
    bytecode: Path
    pass_fds: tuple[int, ...]
    stop: Event


def run(
    python: Path,
    *,
    level: Level,
    accelerator: str,
    environ: Mapping[str, str],
    cwd: Path,
    known_faults: Iterable[KnownFault],
    cpu_flags: Iterable[str] | None = None,
    report: Callable[[str], None] = lambda _: None,
    stall: float = STALL,
    bytecode: Path | None = None,
    pass_fds: tuple[int, ...] = (),
    script: Path = SCRIPT,
    train_script: Path = TRAIN_SCRIPT,
) -> Verdict:
    """Run the self-test and judge it.

    Args:
        python: the environment's interpreter.
        level: ``quick``, ``full`` or ``train`` (quick, then a small training).
        accelerator: ``cpu``, ``cuda``, ``rocm``, ``xpu`` or ``mps``: what the profile computes on. Every
            such device that torch sees is judged; beside it the CPU is told, never judged.
        environ: the caller's environment, handed on as it is but for ``HF_HUB_OFFLINE``.
        cwd: the caller's directory.
        known_faults: of `compat/known_faults.toml`.
        cpu_flags: of this machine's processor, used where the script cannot read them.
        report: told what goes on.
        stall: seconds without an event after which a process counts as hanging.
        bytecode: a directory outside the environment where compiled sources are kept under the hash of the
            source (see `launcher.py`); by default, and where its files cannot be told to be this user's, one
            that lasts as long as this call.
        pass_fds: descriptors that every process inherits: the environment's lock, while it is being built.
        script: the self-test; another one in tests.
        train_script: the training part; another one in tests.

    Raises:
        EnvironmentProblem: the interpreter cannot be started.
    """
    started = time.monotonic()
    rows = tuple(known_faults)
    kind = _TORCH_DEVICE[accelerator]
    with tempfile.TemporaryDirectory(prefix="bnbenv-selftest-") as scratch:
        own = Path(scratch, "bytecode")
        own.mkdir()
        store = own if bytecode is None or _without_owners(bytecode) else bytecode
        common = _Run(
            python=python,
            environ={**environ, "HF_HUB_OFFLINE": "1"},
            cwd=cwd,
            scratch=Path(scratch),
            stall=stall,
            script=script,
            train_script=train_script,
            bytecode=store,
            pass_fds=pass_fds,
            stop=Event(),
        )
        stories, plain = _all(common, level, kind, report)
        devices = tuple(
            _device(name, story, judged=name.split(":")[0] == kind, rows=rows, cpu_flags=cpu_flags)
            for name, story in stories.items()
        )
        verdict = decide.outcome(devices)
        main = next(iter(stories.values()))
        notes = [*_notes(devices), *_library_notes(main), *_import_notes(main, plain)]
        if verdict == "failed" and (names := variables.suspects(environ)):
            report(f"once more without {', '.join(names)}")
            failed = [d.device for d in devices if d.judged and decide.outcome([d]) == "failed"]
            notes.append(_blame(common, level, failed, names, rows, cpu_flags))
        _forget(store)
    return Verdict(
        verdict=verdict,
        level=level,
        library=_text(main.loaded.get("library")),
        devices=devices,
        versions={str(k): str(v) for k, v in main.loaded.get("versions", {}).items()},
        notes=tuple(notes),
        faults=tuple(sorted({c.fault for d in devices if d.judged for c in d.checks if c.fault})),
        seconds=round(time.monotonic() - started, 2),
    )


def _all(
    common: _Run, level: Level, kind: str, report: Callable[[str], None]
) -> tuple[dict[str, Story], Story]:
    """Every device's story, the judged ones first, and that of the plain import."""
    first = kind if kind in {"cpu", "mps"} else f"{kind}:0"
    with ThreadPoolExecutor(max_workers=3) as pool, _set_when_stopped(common.stop):
        report(f"{level} self-test on {first}")
        main = pool.submit(_story, common, first, level)
        beside = pool.submit(_story, common, "cpu", "quick") if first != "cpu" else None
        plain = pool.submit(_plain_import, common, after=main, name=first)
        stories = {first: main.result()}
        for number in range(1, int(stories[first].loaded.get("device_count") or 1)):
            report(f"{level} self-test on {kind}:{number}")
            stories[f"{kind}:{number}"] = _story(common, f"{kind}:{number}", level)
        if beside is not None:
            stories["cpu"] = beside.result()
        return stories, plain.result()


@contextlib.contextmanager
def _set_when_stopped(event: Event) -> Iterator[None]:
    try:
        yield
    except BaseException:
        event.set()
        raise


def _story(common: _Run, device: str, level: Level) -> Story:
    """One device, from the first check to the last, over as many processes as its crashes need."""
    arguments = ["--device", device, "--level", "quick" if level == "train" else level]
    story = _whole(common, common.script, arguments, device)
    imported = any(check.name == "import" and check.state == "passed" for check in story.checks)
    if level == "train" and imported:
        trained = _whole(common, common.train_script, ["--device", device], device + "-train")
        story = replace(story, checks=story.checks + trained.checks)
    return story


def _whole(common: _Run, script: Path, arguments: Sequence[str], name: str) -> Story:
    checks: list[Check] = []
    loaded: Mapping[str, Any] = {}
    first = 0
    for attempt in range(_RESTARTS + 1):
        events = _events(common, name, attempt)
        more = ["--first", str(first)] if first else []
        command = [
            "-I",
            "-B",
            str(LAUNCHER),
            str(common.bytecode),
            str(script),
            *arguments,
            "--events",
            str(events),
            *more,
        ]
        ended, part = _process(common, command, events)
        fresh = [c for c in part.checks if not (attempt and c.name == "import")]
        checks += fresh
        loaded = loaded or part.loaded
        if part.done or common.stop.is_set():
            break
        if ended.returncode != _CONTEXT_LOST or part.open is not None:
            checks.append(crashed(part, ended.how))
        if part.index <= first:
            break  # it did not get to a further check
        first = part.index
    return Story(checks=tuple(checks), open=None, index=first, loaded=loaded, done=True)


def _plain_import(common: _Run, *, after: Future[Story], name: str) -> Story:
    """What a user's own import takes, behind the device's process, which has then compiled all."""
    first = _events(common, name, 0)
    while not after.done() and not _told(first).loaded:
        time.sleep(_POLL)
    events = common.scratch / "plain.jsonl"
    command = ["-B", "-c", imports.BOOTSTRAP, str(LAUNCHER), str(common.bytecode), str(common.script)]
    ended, story = _process(common, [*command, "--imports", "--events", str(events)], events)
    return story if story.done else replace(story, checks=(*story.checks, crashed(story, ended.how)))


def _events(common: _Run, name: str, attempt: int) -> Path:
    return common.scratch / f"{name.replace(':', '-')}-{attempt}.jsonl"


def _told(events: Path) -> Story:
    return read_events(events.read_text("utf-8", "replace").splitlines() if events.exists() else [])


def _process(common: _Run, arguments: Sequence[str], events: Path) -> tuple[child.Ended, Story]:
    try:
        ended = child.watch(
            [str(common.python), *arguments],
            events=events,
            environ=common.environ,
            cwd=common.cwd,
            stall=common.stall,
            log=events.with_suffix(".log"),
            pass_fds=common.pass_fds,
            stop=common.stop,
        )
    except OSError as error:
        raise EnvironmentProblem(
            f"{common.python} cannot be started: {error.strerror or error}",
            hint="bnbenv doctor",
            code="state-broken",
        ) from error
    return ended, _told(events)


def _without_owners(store: Path) -> bool:
    """Make the store; whether its disk shows a file of ours as another's, as many of Windows and CIFS do.

    The launcher would then run nothing of it, and write everything anew.
    """
    try:
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=store) as file:
            return not is_own(file.fileno())
    except OSError:  # without a store every source is compiled, as ever
        return False


def _forget(store: Path) -> None:
    """Take out what no run has used for long."""
    oldest = time.time() - _FORGOTTEN
    with contextlib.suppress(OSError):
        for entry in store.iterdir():
            if entry.stat().st_mtime < oldest:
                entry.unlink()


def _device(
    name: str, story: Story, *, judged: bool, rows: tuple[KnownFault, ...], cpu_flags: Iterable[str] | None
) -> Device:
    flags = story.loaded.get("cpu_flags") or cpu_flags
    versions = story.loaded.get("versions", {})
    checks = (
        faults.explain(check, device=name, versions=versions, cpu_flags=flags, rows=rows)
        for check in story.checks
    )
    return Device(
        device=name,
        name=str(story.loaded.get("name") or name),
        judged=judged,
        checks=tuple(checks),
        capability=_text(story.loaded.get("capability")),
    )


def _notes(devices: Iterable[Device]) -> Iterable[str]:
    for device in devices:
        if device.judged:
            for name in decide.missing(device):
                yield f"on {device.device} no check of `{name}` passed"
        elif any(check.state in {"failed", "crashed"} for check in device.checks):
            yield f"{device.device} computes wrongly in places; the profile does not use it"


def _library_notes(main: Story) -> Iterable[str]:
    if main.loaded and not main.loaded.get("library"):
        yield "no native library is loaded: what is offered computes in Python, many times slower"


def _import_notes(main: Story, plain: Story) -> Iterable[str]:
    if not main.loaded:
        return ()
    if not plain.loaded:
        seen = next((c.detail for c in plain.checks if c.state in {"failed", "crashed"}), None)
        return (f"a plain import from the current directory fails: {seen or 'it ended early'}",)
    modules, libraries = "modules", "mapped"
    return imports.differences(
        main.loaded.get(modules, {}),
        plain.loaded.get(modules, {}),
        main.loaded.get(libraries, ()),
        plain.loaded.get(libraries, ()),
    )


def _blame(
    common: _Run,
    level: Level,
    failed: Iterable[str],
    names: tuple[str, ...],
    rows: tuple[KnownFault, ...],
    cpu_flags: Iterable[str] | None,
) -> str:
    """One more run of the failed devices without the variables, and what it says about them."""
    again = common.scratch / "without"
    again.mkdir()
    changed = replace(common, environ=variables.without(common.environ, names), scratch=again)
    devices = [
        _device(name, _story(changed, name, level), judged=True, rows=rows, cpu_flags=cpu_flags)
        for name in failed
    ]
    given = ", ".join(f"`{name}`" for name in names)
    if decide.outcome(devices) == "failed":
        return f"it fails without {given} too"
    return f"it does not fail without {given}: unset {'it' if len(names) == 1 else 'them'}"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
