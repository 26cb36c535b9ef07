"""`lock`: the fewest standard locks for many machines, and the questions that can be asked of them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.cli.additions import add_additions, check_date, check_packages
from bnbenv.cli.options import (
    add_offline,
    add_request,
    add_target,
    described_target,
    description_words,
    lock_directory,
    read_requirements,
    read_target,
)
from bnbenv.cli.outcome import Outcome, Problem
from bnbenv.cli.spelling import spelt
from bnbenv.errors import EXIT_FINDINGS, EXIT_OK, EXIT_UNSOLVABLE, UsageError
from bnbenv.home import expanded
from bnbenv.words import counted

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator, Mapping, Sequence

    from bnbenv.cli.ui import Ui
    from bnbenv.lockfile.index import MachineClass, TeamLock
    from bnbenv.machine.target import Target
    from bnbenv.workflows.fleet import Given
    from bnbenv.workflows.lock import Locked

EPILOG = """\
Examples:
  bnbenv lock qlora                                    for this machine
  bnbenv lock qlora --target a.json --target b.json    for machines described by `bnbenv detect --json`
  bnbenv lock qlora --targets machines/                for all of a directory
  bnbenv lock --add-this-machine                       add this one to the lock that is here
  bnbenv lock --with einops                            add a package to what the lock is for
  bnbenv lock --upgrade-package transformers           the rest stays as it is
  bnbenv lock --diff                                   say what would change for whom, and write nothing
  bnbenv lock --against ../main/locks                  say what this lock has otherwise than that one
  bnbenv lock --check                                  do the files still agree, and does nobody object?
  bnbenv lock --export dockerfile --variant cu126      a file to paste

An index that does not answer, and whose torch would be taken, ends it (exit 5): nothing else is taken in
silence. `--without-index NAME` leaves it out; machines whose assignment stands do not need it.
"""
EXPORTS = ("requirements", "dockerfile", "devcontainer", "slurm")
# What only locking reads, by the names of `Namespace`.
_LOCKING = (
    "profile", "torch", "bitsandbytes", "cuda", "python", "cpu", "without_index", "packages", "requirements",
    "exclude_newer", "target", "gpu", "driver", "os", "arch", "glibc", "targets", "add_this_machine",
    "forget", "upgrade", "upgrade_package", "repack",
)  # fmt: skip


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "profile",
        metavar="PROFILE",
        nargs="?",
        help="what it is for: qlora, inference, … (default: what the lock is for; else qlora)",
    )
    parser.add_argument(
        "--dir",
        metavar="DIR",
        help="where the locks stand (default: here; without PROFILE, else the nearest above in a repository)",
    )
    add_request(parser, several=True)
    add_additions(parser)
    add_target(parser, several=True)
    fleet = parser.add_argument_group("the machines of the lock")
    fleet.add_argument("--targets", metavar="DIR", help="every target file (*.json, *.jsonl) of a directory")
    fleet.add_argument(
        "--add-this-machine", action="store_true", help="add the machine at hand to the lock that is there"
    )
    fleet.add_argument(
        "--forget", action="append", default=[], metavar="NAME", help="take a machine out; repeat for several"
    )
    keep = parser.add_argument_group("what may change")
    keep.add_argument("--upgrade", action="store_true", help="choose everything anew, as new as it may be")
    keep.add_argument(
        "--upgrade-package",
        action="append",
        default=[],
        metavar="NAME",
        help="choose the version of this package anew; repeat for several",
    )
    keep.add_argument(
        "--repack",
        action="store_true",
        help="assign machines anew, whatever the lock says; versions stay if they fit",
    )
    keep.add_argument(
        "--allow-local", action="store_true", help="lock files of this machine's disk, which no other has"
    )
    ask = parser.add_argument_group("instead of locking")
    ask.add_argument("--diff", action="store_true", help="say what would change for whom, and write nothing")
    ask.add_argument(
        "--against",
        metavar="DIR",
        help="say what is other for whom than in the lock of DIR, such as another checkout's",
    )
    ask.add_argument("--check", action="store_true", help="check the lock that is there; exit 1 on a finding")
    ask.add_argument("--export", choices=EXPORTS, help="print a file for one variant")
    ask.add_argument("--variant", metavar="NAME", help="which one, for --export")
    add_offline(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Lock, or answer about a lock."""
    questions = ("check", "export", "against") if args.against else ("diff", "check", "export")
    chosen = [name for name in questions if getattr(args, name)]
    if len(chosen) > 1:
        raise UsageError(f"`--{chosen[0]}` and `--{chosen[1]}` exclude each other", hint="bnbenv lock --help")
    if args.check or args.export or args.against:
        args.schema = f"lock-{chosen[0]}"
    # With PROFILE a lock of its own may be wanted here; without, the one that is there is meant.
    directory = lock_directory(args.dir or ("." if args.profile else None), "`--dir`", ui)
    if args.check:
        _refuse_ignored(args, "--check", (*_LOCKING, "variant"), directory)
        return _check(args, directory, ui)
    if args.export:
        _refuse_ignored(args, f"--export {args.export}", _LOCKING, directory)
        return _export(args, directory)
    if args.against:
        _refuse_ignored(args, f"--against {shlex.quote(args.against)}", (*_LOCKING, "variant"), directory)
        return _against(expanded(args.against, "`--against`").absolute(), directory)
    if args.profile and Path(args.profile).suffix in (".json", ".jsonl"):
        raise UsageError(
            f"there is no profile `{args.profile}`, which is called as a target file is",
            hint=f"--target {shlex.quote(args.profile)}; a profile is what the lock is for: bnbenv profiles",
        )
    if args.variant:
        raise UsageError(
            f"`--variant {args.variant}` is for `--export` alone: what is locked is locked for all variants",
            hint=shlex.join(("bnbenv", "lock", *_without_variant(args.typed))),
        )
    from bnbenv.workflows.config import read_config
    from bnbenv.workflows.lock import LockRequest, lock

    described: dict[str, str] = {}
    request = LockRequest(
        asked=asked_from(args),
        directory=directory,
        targets=_targets(args, described),
        this_machine=args.add_this_machine,
        forget=tuple(args.forget),
        repack=args.repack,
        upgrade=args.upgrade,
        upgrade_packages=tuple(args.upgrade_package),
        allow_local=args.allow_local,
        offline=args.offline,
        write=not args.diff,
        today=_today(),
        mirrors=read_config().mirrors,
        command=shlex.join(("bnbenv", "lock", *args.typed)),
    )
    return _outcome(lock(request, ui, os.environ), request.directory, described, ui)


def _today() -> str:
    """The day that the lock is of: this one, or that of ``SOURCE_DATE_EPOCH``, as reproducible builds set it.

    Raises:
        UsageError: the variable is no time.
    """
    from datetime import datetime, timezone

    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        seconds = int(epoch) if epoch else None
        now = datetime.now(timezone.utc) if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"`SOURCE_DATE_EPOCH` is `{epoch}`, which is no time", hint="seconds since 1970, or unset it"
        ) from error
    return now.date().isoformat()


def _refuse_ignored(args: Namespace, question: str, names: tuple[str, ...], directory: Path) -> None:
    """Refuse what a question about the lock that is there does not read.

    Raises:
        UsageError: such an option is given; the message names all that are.
    """
    from bnbenv.lockfile.commands import lock_command

    shown = {"profile": f"`{args.profile}`", "packages": "`--with`"}
    given = [shown.get(name, f"`--{name.replace('_', '-')}`") for name in names if getattr(args, name)]
    if given:
        kept = [
            f"--variant {shlex.quote(args.variant)}" if args.variant and "variant" not in names else "",
            "--allow-local" if args.allow_local else "",
            "--offline" if args.offline else "",
        ]
        raise UsageError(
            f"`{question}` asks about the lock that is there, and does not read {', '.join(given)}",
            hint=lock_command(directory, question, *filter(None, kept)),
        )


def _without_variant(words: Sequence[str]) -> Iterator[str]:
    """A line without its ``--variant``."""
    rest = iter(words)
    for word in rest:
        if word == "--variant":
            next(rest, None)
        elif not word.startswith("--variant="):
            yield word


def asked_from(args: Namespace) -> dict[str, Any]:
    """What the line asks for, by the names of `Wanted`; nothing that it does not name.

    Raises:
        UsageError: a package, a date or a file cannot be read, or holds a credential or control characters.
    """
    from bnbenv.install.redact import redact
    from bnbenv.lockfile.text import printable

    check_packages(args.packages)
    check_date(args.exclude_newer)
    lines = read_requirements(args.requirements)
    asked = {
        "profile": args.profile,
        "torch": args.torch,
        "bitsandbytes": args.bitsandbytes,
        "cuda": args.cuda,
        "python": args.python,
        "packages": tuple(args.packages),
        "requirements": lines.requirements,
        "constraints": lines.constraints,
        "exclude_newer": args.exclude_newer,
        "cpu": args.cpu,
        "without_index": tuple(args.without_index),
    }
    for text in (*args.packages, *lines.requirements, *lines.constraints):
        if redact(text) != text:
            raise UsageError(
                f"`{redact(text)}` holds a credential, and a lock is for everybody's eyes",
                hint="leave it out: netrc, a keyring and UV_INDEX_<NAME>_PASSWORD reach uv as well",
                code="bad-request",
            )
    given = {key: value for key, value in asked.items() if value not in (None, (), False)}
    for value in given.values():
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and not printable(text):
                raise UsageError(
                    f"{text!r} holds control characters", hint="leave them out", code="bad-request"
                )
    return given


def _targets(args: Namespace, described: dict[str, str]) -> Iterator[Given]:
    """The machines that the line names, read one by one; what describes each is put into `described`."""
    from bnbenv.dataclass import replace
    from bnbenv.workflows.fleet import Given

    for name in args.target:
        if Path(name).is_dir():
            raise UsageError(
                f"`--target {name}` is a directory",
                hint=f"--targets {shlex.quote(name)}, for every target file in it",
                code="bad-target",
            )
        given = _given(read_target(name), "stdin" if name == "-" else f"`{name}`", Path(name).stem)
        described[given.target.name] = f"--target {shlex.quote(name)}"
        yield given
    if args.targets:
        directory = expanded(args.targets, "`--targets`")
        if directory.is_file():
            raise UsageError(
                f"`--targets {args.targets}` is a file",
                hint=f"--target {shlex.quote(args.targets)}; a *.jsonl is read in its directory",
                code="bad-target",
            )
        files = sorted([*directory.glob("*.json"), *directory.glob("*.jsonl")])
        if not files:
            raise UsageError(
                f"`--targets {args.targets}` holds no target file (*.json, *.jsonl)",
                hint="bnbenv detect --json > machines/NAME.json, on each machine",
                code="bad-target",
            )
        for file in files:
            for given in _of_file(file):
                if file.suffix == ".json":
                    described[given.target.name] = f"--target {shlex.quote(str(file))}"
                yield given
    driver = f"driver {args.driver}" if args.driver else None
    glibc = f"glibc {args.glibc}" if args.glibc else None
    words = [*args.gpu, *(word for word in (driver, args.os, args.arch, glibc) if word)]
    if words:
        # Its name is all that is given: what is described otherwise is another machine.
        target = replace(described_target(args), name=", ".join(words))
        described[target.name] = shlex.join(description_words(args, files=False))
        yield Given(target=target, origin="the line")


def _of_file(file: Path) -> Iterator[Given]:
    if file.suffix != ".jsonl":
        yield _given(read_target(str(file)), f"`{file}`", file.stem)
        return
    import json

    from bnbenv.cli.options import unwrap_target
    from bnbenv.machine.document import target_from_dict
    from bnbenv.texts import encoding_of

    blank = True
    try:
        with file.open("rb") as head:
            encoding = encoding_of(head.read(2))
        with file.open(encoding=encoding) as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                blank = False
                try:
                    data = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise UsageError(
                        f"`{file}` line {number} is not JSON: {error}",
                        hint="one JSON object a line, as `bnbenv detect --json` prints it there",
                        code="bad-target",
                    ) from error
                target = target_from_dict(unwrap_target(data), where=f"{file}:{number}")
                yield _given(target, f"`{file}` line {number}", f"{file.stem}-{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"`{file}` cannot be read: {error}", hint=f"ls -l {shlex.quote(str(file))}", code="bad-target"
        ) from error
    if blank:
        raise UsageError(
            f"`{file}` describes no machine",
            hint="one JSON object a line, as `bnbenv detect --json` prints it there",
            code="bad-target",
        )


def _given(target: Target, origin: str, name: str) -> Given:
    """A machine of a file, under its own name or else the file's.

    Raises:
        UsageError: it would get a name with control characters.
    """
    from bnbenv.dataclass import replace
    from bnbenv.workflows.fleet import Given

    if target.name not in ("unnamed", ""):
        return Given(target=target, origin=origin)
    if not name.isprintable():
        raise UsageError(
            f"the target file {name!r} has a name with control characters",
            hint="rename it: the machine is called by it",
            code="bad-target",
        )
    return Given(target=replace(target, name=name), origin=origin)


def _outcome(locked: Locked, directory: Path, described: Mapping[str, str], ui: Ui) -> Outcome:
    index = locked.lock
    unserved = [entry for entry in index.classes if entry.variant is None]
    data: dict[str, Any] = {
        "directory": str(directory),
        "written": locked.written,
        "changed": locked.changed,
        "variants": [_variant(index, variant.name, locked) for variant in index.variants],
        "unserved": [
            {"machines": list(entry.machines), "blocking": list(entry.blocking), "seen": entry.seen}
            for entry in unserved
        ],
        "changes": list(locked.changes),
        "lost": list(locked.lost),
        "local": list(locked.local),
        "left_out": list(locked.left_out),
        "matrix": index.matrix,
        "seconds": dict(locked.seconds),
    }
    problems = [
        Problem(
            code="unsolvable",
            message=f"nothing serves {', '.join(entry.machines[:5])}: {'; '.join(entry.blocking)}",
            hint=_to_see(entry, index, described),
        )
        for entry in unserved
    ]
    problems += _notices(locked, directory)
    return Outcome(
        data=data,
        text=_text(locked, directory, ui),
        exit_code=EXIT_UNSOLVABLE if unserved else EXIT_OK,
        problems=tuple(problems),
    )


def _to_see(entry: MachineClass, index: TeamLock, described: Mapping[str, str]) -> str:
    """What says which changes would let a machine be served: here if the line described it, else there."""
    from bnbenv.lockfile.commands import resolve_command

    words = next((described[name] for name in entry.machines if name in described), None)
    command = resolve_command(index.request, words or "")
    return f"{command} (what it would need)" if words else f"{command}, on that machine (what it would need)"


def _notices(locked: Locked, directory: Path) -> list[Problem]:
    from bnbenv.lockfile.commands import lock_command
    from bnbenv.lockfile.difference import some

    notices = []
    if locked.linked:
        written = (f"`{name}` to `{place}`" for name, place in sorted(locked.linked.items()))
        notices.append(
            Problem(
                code="notice",
                message=f"written where links lead: {', '.join(written)}",
                hint="commit it there",
            )
        )
    if locked.local:
        notices.append(
            Problem(
                code="notice",
                message="ONLY THIS MACHINE CAN INSTALL FROM THIS LOCK: " + some(locked.local),
                hint="put these files on an index, and lock without --allow-local",
            )
        )
    if locked.left_out:
        notices.append(
            Problem(
                code="notice",
                message=f"{', '.join(locked.left_out)} left out: only this machine has it",
                hint="--allow-local takes it in",
            )
        )
    if locked.lost:
        forget = (f"--forget {shlex.quote(name)}" for name in locked.lost)
        notices.append(
            Problem(
                code="notice",
                message=f"{', '.join(locked.lost)}: no accelerator is visible; the last known facts are kept",
                hint=f"{lock_command(directory, *forget)}, if that is gone for good",
            )
        )
    return notices


def _variant(index: TeamLock, name: str, locked: Locked) -> dict[str, Any]:
    variant = index.variant(name)
    return {
        "name": name,
        "file": variant.file,
        "sha256": variant.sha256,
        "python": variant.python,
        "os": variant.os,
        "arch": variant.arch,
        "torch": dict(variant.torch),
        "bitsandbytes": None if variant.bitsandbytes is None else dict(variant.bitsandbytes),
        "packages": locked.files[variant.file].count("[[packages]]"),
        "machines": sorted(machine for entry in index.serving(name) for machine in entry.machines),
        "evidence": variant.evidence,
    }


def _text(locked: Locked, directory: Path, ui: Ui) -> str:
    from bnbenv.lockfile.commands import sync_command

    index = locked.lock
    rows = [
        (
            variant.file,
            f"Python {variant.python}, torch {variant.torch['version']} ({variant.torch['build']})"
            + (f", bitsandbytes {variant.bitsandbytes['version']}" if variant.bitsandbytes else ""),
            _count(sum(len(entry.machines) for entry in index.serving(variant.name))),
        )
        for variant in index.variants
    ]
    lines = [ui.table(rows)] if rows else []
    lines += [f"  {change}" for change in locked.changes]
    if not locked.changed:
        lines.append("nothing changed")
    elif locked.written:
        sync = spelt(sync_command(directory, "--allow-local" if locked.local else ""))
        then = f"commit bnbenv.lock and pylock.*.toml, then `{sync}`" if rows else "it serves no machine"
        lines.append(f"written to {directory}: {then}")
    else:
        lines.append("nothing was written" + ("" if rows else ": it would serve no machine"))
    return "\n".join(lines)


def _count(number: int) -> str:
    return f"{number} machine{'s' * (number != 1)}"


def _check(args: Namespace, directory: Path, ui: Ui) -> Outcome:
    from bnbenv.cli.findings import findings_text
    from bnbenv.judge.document import finding_document
    from bnbenv.workflows.check_lock import check_lock
    from bnbenv.workflows.config import read_config

    checked = check_lock(
        directory,
        ui,
        os.environ,
        mirrors=read_config().mirrors,
        offline=args.offline,
        cwd=Path.cwd(),
        allow_local=args.allow_local,
    )
    findings = [finding_document(finding) for finding in checked.findings]
    failed = any(finding.severity == "error" for finding in checked.findings)
    lines = findings_text(findings, ui)
    lines += [f"not looked at: {what}" for what in checked.not_looked_at]
    lines.append(
        counted(len(findings), "finding")
        if findings
        else f"{counted(checked.packages, 'package')} in {counted(checked.variants, 'lock')}: sound"
    )
    return Outcome(
        data={
            "directory": str(directory),
            "variants": checked.variants,
            "packages": checked.packages,
            "findings": findings,
            "not_looked_at": list(checked.not_looked_at),
            "matrix": checked.matrix,
        },
        text="\n".join(lines),
        exit_code=EXIT_FINDINGS if failed else EXIT_OK,
    )


def _against(before: Path, directory: Path) -> Outcome:
    from bnbenv.workflows.compare_locks import compare_locks

    changes = compare_locks(before, directory)
    return Outcome(
        data={
            "directory": str(directory),
            "against": str(before),
            "changed": bool(changes),
            "changes": list(changes),
        },
        text="\n".join(changes) or "no difference",
    )


def _export(args: Namespace, directory: Path) -> Outcome:
    from bnbenv.cli.redact import Verbatim
    from bnbenv.workflows.export_lock import export_lock

    exported = export_lock(directory, args.export, variant=args.variant, allow_local=args.allow_local)
    text = Verbatim(exported.text)
    return Outcome(
        data={"kind": args.export, "variant": exported.variant, "name": exported.name, "text": text},
        text=text,
    )
