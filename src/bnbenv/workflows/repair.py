"""`repair`: look, plan, build, look and compute again, switch; or leave everything as it was."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bnbenv.doctor.plan import Facts, codes, is_outside, make_plan, variables_of
from bnbenv.errors import DataError, EnvironmentProblem, Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnbenv.doctor.plan import Mode, Plan, Step
    from bnbenv.env.generation import Generation
    from bnbenv.env.locking import Hold
    from bnbenv.env.state import State
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.machine.target import Target
    from bnbenv.selftest.verdict import Verdict
    from bnbenv.workflows.doctor import Examined
    from bnbenv.workflows.environment import Located
    from bnbenv.workflows.mend import Change
    from bnbenv.workflows.order import Stopwatch
    from bnbenv.workflows.rebuild import Carried
    from bnbenv.workflows.request import CreateRequest, LinkMode
    from bnbenv.workflows.verify import Verified
    from bnbenv.workflows.voice import Voice

Outcome = Literal["nothing", "planned", "repaired", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairRequest:
    """One call of `repair`.

    Attributes:
        mode: ``auto`` keeps a torch that the user changed where it can stay, and else returns to the lock.
        cpu: give a lost accelerator up.
        target: another machine that it is for; ``None`` for this one.
        mirrors: index name or family → address, from bnbenv's configuration.
    """

    mode: Mode = "auto"
    cpu: bool = False
    target: Target | None = None
    deep: bool = False
    offline: bool = False
    dry_run: bool = False
    link_mode: LinkMode = "auto"
    mirrors: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = field(default_factory=Path.cwd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """The answer of `repair`.

    Attributes:
        outcome: ``stopped``: what is wrong cannot be mended from here, and nothing was touched.
        before: what the doctor found.
        after: what it finds now; ``None`` where nothing was done.
        changes: packages that are installed again or in another version; those of a rebuild by difference.
        generation: the new one, of one of bnbenv's own environments.
        carried: what of the user's came along into it.
        verdict: of the self-test; ``None`` where nothing was done.
        seconds: by phase.
    """

    located: Located
    outcome: Outcome
    before: Examined
    plan: Plan
    after: Examined | None = None
    changes: tuple[Change, ...] = ()
    generation: Generation | None = None
    carried: Carried | None = None
    verdict: Verdict | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


class NotMendedError(EnvironmentProblem):
    """The doctor or the self-test is not content with what was built; everything was put back."""

    exit_code = 1
    default_code = "not-mended"

    def __init__(self, why: str, *, verdict: Verdict | None = None) -> None:
        super().__init__(
            f"{why}; everything is as it was",
            hint="bnbenv report, or bnbenv create (an environment of its own)",
        )
        self.verdict = verdict


def repair(
    located: Located,
    request: RepairRequest,
    voice: Voice,
    environ: Mapping[str, str],
    *,
    yes: bool = False,
) -> Repaired:
    """Mend an environment, or say why it cannot be mended from here.

    Raises:
        NotMendedError: what was built is not better; everything is as it was.
        UnsolvableError: no stack serves the machine; nothing was touched.
        ExternalError: uv, an index or the disk failed; everything is as it was.
        Interrupted: the user said no.
    """
    from bnbenv.workflows.environment import heal, holding
    from bnbenv.workflows.order import Stopwatch

    watch = Stopwatch()
    with _unlocked() if request.dry_run else holding(located, "repair", voice, environ) as held:
        if held is not None:
            heal(located, voice)
            located = _current(located)
        with watch.phase("doctor"):
            before = _examine(located, request, voice, environ)
        known, lock = _memory(located)
        plan = _plan(before, located, lock, request, voice, environ)
        for step in (*plan.stops, *plan.steps, *plan.shown):
            voice.progress(f"{step.summary} ({', '.join(sorted(codes([step])))})")
        if not plan.steps:
            outcome: Outcome = "stopped" if plan.stops else "nothing"
            return Repaired(located=located, outcome=outcome, before=before, plan=plan, seconds=watch.seconds)
        work = _Work(
            located=located,
            request=request,
            before=before,
            plan=plan,
            lock=lock,
            voice=voice,
            environ=environ,
            watch=watch,
            yes=yes,
        )
        if _rebuilds(located) and known is not None:
            return work.rebuild(known, held)
        return work.mend(held)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """A plan that is being carried out."""

    located: Located
    request: RepairRequest
    before: Examined
    plan: Plan
    lock: Pylock | None
    voice: Voice
    environ: Mapping[str, str]
    watch: Stopwatch
    yes: bool

    def rebuild(self, known: State, held: Hold | None) -> Repaired:
        """A new generation beside the old one."""
        from bnbenv.install.uv import find_uv
        from bnbenv.workflows.order import Means
        from bnbenv.workflows.rebuild import decide, rebuild, request_of

        uv = find_uv(self.environ, log=self.voice.ran)
        means = Means(uv=uv, voice=self.voice, environ=self.environ, watch=self.watch)
        asked = request_of(known, self.located, self._asked())
        with self.watch.phase("choose"):
            order = decide(
                known, self.lock, self.before.installed, self.plan, self.request.mode, asked, means
            )
        changes = self._differences(order.lock)
        if held is None:
            return self._planned(changes)
        self._confirm(f"build `{known.name}` anew?")
        built = rebuild(
            self.located,
            order,
            replace(means, environ=self._without_shown()),
            self.before.installed,
            {it.name: it.version for it in self.lock.packages if it.version} if self.lock else {},
            self._approve,
            held=held,
        )
        if built.realised.generation is None or not built.realised.changed:
            raise NotMendedError(
                "the new generation does not compute rightly", verdict=built.realised.verdict
            )
        located = replace(self.located, directory=built.realised.generation.directory)
        with self.watch.phase("doctor"):
            after = _examine(located, self.request, self.voice, self.environ)
        return Repaired(
            located=located,
            outcome="repaired",
            before=self.before,
            plan=self.plan,
            after=after,
            changes=changes,
            generation=built.realised.generation,
            carried=built.carried,
            verdict=built.realised.verdict,
            seconds=self.watch.seconds,
        )

    def mend(self, held: Hold | None) -> Repaired:
        """In place, in steps that are each put back on failure."""
        from bnbenv.install.uv import find_uv
        from bnbenv.machine.probe import probe
        from bnbenv.workflows.mend import choose_part, mend_guard, mend_packages, mend_venv
        from bnbenv.workflows.order import Means
        from bnbenv.workflows.verify import keep

        uv = find_uv(self.environ, log=self.voice.ran)
        means = Means(uv=uv, voice=self.voice, environ=self.environ, watch=self.watch)
        before, pass_fds = self.before, held.pass_fds if held else ()
        if held is not None:
            self._confirm(f"change `{self.located.directory}`?")
            if self.plan.subjects("mend-venv"):
                with self.watch.phase("venv"):
                    mend_venv(before, probe(environ=self.environ), means, pass_fds=pass_fds)
        with self.watch.phase("choose"):
            part = choose_part(before, self.plan, self.lock, self._asked(), self.request.mode, means)
        if held is None:
            return self._planned(part.changes if part else ())
        proven: list[tuple[Examined, Verified]] = []
        if part is None and self.plan.subjects("mend-guard"):
            with self.watch.phase("change"):
                mend_guard(before.installed.prefix, lambda: proven.append(self._prove()))
        elif part is None:
            proven.append(self._prove())
        else:
            for change in part.changes:
                self.voice.progress(f"  {change}")
            with self.watch.phase("change"):
                mend_packages(
                    before.installed,
                    before.located.python,
                    part,
                    lambda: proven.append(self._prove()),
                    means,
                    pass_fds=pass_fds,
                )
        after, verified = proven[0]
        keep(verified, self.voice, self.environ)  # of what was put back nothing is kept
        return Repaired(
            located=self.located,
            outcome="repaired",
            before=before,
            plan=self.plan,
            after=after,
            changes=part.changes if part else (),
            verdict=verified.verdict,
            seconds=self.watch.seconds,
        )

    def _prove(self) -> tuple[Examined, Verified]:
        """The same doctor, then the self-test."""
        from bnbenv.workflows.verify import verify

        after = _examine(self.located, self.request, self.voice, self.environ)
        self._refuse(after)
        with self.watch.phase("self-test"):
            verified = verify(
                self.located,
                level="quick",
                cpu=self.request.cpu,
                cwd=self.request.cwd,
                voice=self.voice,
                environ=self._without_shown(),
            )
        if verified.verdict.verdict == "failed":
            raise NotMendedError(
                "the environment does not compute rightly after the change", verdict=verified.verdict
            )
        return after, verified

    def _approve(self, made: Generation) -> None:
        """Look at a finished generation as the doctor looks, before anybody can use it."""
        located = replace(self.located, directory=made.directory)
        self._refuse(_examine(located, self.request, self.voice, self.environ))

    def _refuse(self, after: Examined) -> None:
        """Nothing that the plan was to mend may be left, and no error may be new."""
        mended = codes(self.plan.steps)
        known = {(found.code, found.subject) for found in self.before.findings}
        left = [
            found
            for found in after.findings
            if (found.code in mended and found.severity != "info")
            or (found.severity == "error" and (found.code, found.subject) not in known)
        ]
        if left:
            raise NotMendedError("; ".join(f"{found.code}: {found.summary}" for found in left[:3]))

    def _asked(self) -> CreateRequest:
        from bnbenv.workflows.request import CreateRequest, Wanted

        request = self.request
        return CreateRequest(
            wanted=Wanted(profile="qlora", cpu=request.cpu),
            name=self.located.directory.name,
            target=request.target,
            link_mode=request.link_mode,
            offline=request.offline,
            dry_run=request.dry_run,
            mirrors=request.mirrors,
            cwd=request.cwd,
        )

    def _without_shown(self) -> dict[str, str]:
        """The variables without those that the user is told to unset: they are not the environment's."""
        told = {step.subject for step in self.plan.shown}
        return {name: value for name, value in self.environ.items() if name not in told}

    def _confirm(self, question: str) -> None:
        if not self.voice.confirm(question, yes=self.yes):
            raise Interrupted("nothing was changed")

    def _planned(self, changes: tuple[Change, ...]) -> Repaired:
        return Repaired(
            located=self.located,
            outcome="planned",
            before=self.before,
            plan=self.plan,
            changes=changes,
            seconds=self.watch.seconds,
        )

    def _differences(self, lock: Pylock) -> tuple[Change, ...]:
        """What a rebuild changes of the versions that are there."""
        from bnbenv.doctor.plan import same_version
        from bnbenv.workflows.mend import Change

        present = self.before.installed.versions
        return tuple(
            Change(name=package.name, version=package.version, present=present.get(package.name))
            for package in lock.packages
            if package.version
            and not (package.name in present and same_version(present[package.name], package.version))
        )


def _examine(located: Located, request: RepairRequest, voice: Voice, environ: Mapping[str, str]) -> Examined:
    from bnbenv.workflows.doctor import examine

    return examine(located, voice, environ, deep=request.deep, target=request.target, cwd=request.cwd)


def _plan(
    before: Examined,
    located: Located,
    lock: Pylock | None,
    request: RepairRequest,
    voice: Voice,
    environ: Mapping[str, str],
) -> Plan:
    """Plan for the environment as it is without the variables that mislead bitsandbytes."""
    from bnbenv.doctor.stack import JUDGED_VARIABLES
    from bnbenv.matrix.load import load

    causes = {row.id: row for row in load("causes").causes}
    misleading = [name for name in JUDGED_VARIABLES if name in environ]
    findings = before.findings
    shown: tuple[Step, ...] = ()
    if misleading:
        bare = {name: value for name, value in environ.items() if name not in misleading}
        inside = _examine(located, request, voice, bare).findings
        shown = variables_of(before.findings, inside, misleading, causes)
        findings = (*inside, *(found for found in before.findings if is_outside(found, causes)))
    locked = {it.name: it.version for it in lock.packages if it.version} if lock is not None else None
    facts = Facts(
        environment=located.name,
        findings=findings,
        installed=before.installed.versions,
        causes=causes,
        locked=locked,
        rebuilds=_rebuilds(located),
    )
    plan = make_plan(facts, request.mode)
    return replace(plan, shown=(*plan.shown, *shown))


def _rebuilds(located: Located) -> bool:
    """Whether a new generation can stand beside the old one."""
    return located.kind == "bnbenv" and located.place is not None and located.place.form != "plain"


def _memory(located: Located) -> tuple[State | None, Pylock | None]:
    """The state and the lock of one of bnbenv's own, as far as they can be read."""
    from bnbenv.env import state
    from bnbenv.errors import ExternalError
    from bnbenv.lockfile import pylock

    if located.kind != "bnbenv":
        return None, None
    generation, lock = located.generation, None
    known = state.read_whole(generation.state_file)
    with suppress(DataError, ExternalError):
        lock = pylock.read(generation.lock_file)
    return known, lock


def _current(located: Located) -> Located:
    """Who waited for the lock may find another generation current."""
    from bnbenv.env import switch

    if located.place is None:
        return located
    found = switch.current(located.place)
    return located if found is None else replace(located, directory=found.directory)


@contextmanager
def _unlocked() -> Iterator[None]:
    yield None
