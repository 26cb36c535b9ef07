"""`install` and `upgrade`: what was asked of an environment, and what is asked now, as a new generation.

A generation is never changed in place: both lock anew, with every version kept that can stay, and take the
road of `create`. What the user had added by pip comes along.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass, field, replace
from bnbenv.errors import (
    BnbenvError,
    EnvironmentProblem,
    ExternalError,
    Interrupted,
    UnsolvableError,
    UsageError,
)
from bnbenv.names import normalized
from bnbenv.units import minor_release

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.env.generation import Generation
    from bnbenv.env.layout import Place
    from bnbenv.env.locking import Hold
    from bnbenv.env.state import State
    from bnbenv.install.uv import Uv
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.machine.target import Target
    from bnbenv.workflows.choose import Choice
    from bnbenv.workflows.environment import Located
    from bnbenv.workflows.mend import Change
    from bnbenv.workflows.realise import Realised
    from bnbenv.workflows.rebuild import Carried
    from bnbenv.workflows.request import CreateRequest, LinkMode, Wanted
    from bnbenv.workflows.voice import Voice

# These the judge chooses; an ordinary requirement could only contradict it.
JUDGED = ("torch", "bitsandbytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRequest:
    """One call of `install` or `upgrade`.

    Attributes:
        packages: requirements.
        requirements, constraints: lines of the requirement files, and of the constraint files they name.
        anyway: let packages in that are known to break the others.
        target: another machine that it is for; ``None`` for this one.
        mirrors: index name or family → address, from bnbenv's configuration.
    """

    packages: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    anyway: bool = False
    target: Target | None = None
    offline: bool = False
    dry_run: bool = False
    link_mode: LinkMode = "auto"
    mirrors: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = field(default_factory=Path.cwd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """The answer of `install` and `upgrade`.

    Attributes:
        changes: packages that are added or get another version.
        removed: packages that the lock has no more, with their versions.
        let_in: packages that are known to break others and were let in all the same → what they do.
        realised: ``None`` after a dry run, and where nothing changes.
        carried: what of the user's own came along.
    """

    located: Located
    wanted: Wanted
    changes: tuple[Change, ...]
    removed: Mapping[str, str]
    let_in: Mapping[str, str]
    realised: Realised | None
    carried: Carried | None


def install(
    located: Located, asked: ChangeRequest, voice: Voice, environ: Mapping[str, str], *, yes: bool = False
) -> Changed:
    """Add packages under the environment's constraints, and to its lock.

    Raises:
        UnsolvableError: code ``hazard``: a package would break the others by standing there.
        ExternalError: code ``conflict``: what is there and what is asked exclude each other; it says how.
        UsageError: torch or bitsandbytes is asked for, or a requirement cannot be read.
        EnvironmentProblem: the environment is none of bnbenv's own; code ``locked``: another command has
            changed it since it was read.
        Interrupted: the user said no.
    """
    from bnbenv.install.compile_inputs import name_of

    names = {name_of(text): text for text in asked.packages}
    if "torch" in names:
        raise _chosen(names["torch"], located)
    work = _Work.on(located, asked, "install", voice, environ)
    if "bitsandbytes" in names and work.lock.find("bitsandbytes"):
        raise _chosen(names["bitsandbytes"], located)
    wanted = replace(
        work.wanted,
        packages=(*(it for it in work.wanted.packages if name_of(it) not in names), *asked.packages),
        requirements=_joined(work.wanted.requirements, asked.requirements),
        constraints=_joined(work.wanted.constraints, asked.constraints),
    )
    choice = work.same_choice()
    let_in = work.refuse_named(choice, [*asked.packages, *asked.requirements])
    return work.carry_out(wanted, choice, let_in, upgrade=(), yes=yes)


def _chosen(text: str, located: Located) -> UsageError:
    return UsageError(
        f"`{text}` is not added but chosen, so that all of it fits the machine",
        hint=f"bnbenv upgrade '{text}' --in {_word(located)}",
    )


def upgrade(
    located: Located, asked: ChangeRequest, voice: Voice, environ: Mapping[str, str], *, yes: bool = False
) -> Changed:
    """Take newer releases: of everything, or of the packages named; the others keep theirs where they can.

    Raises:
        UnsolvableError: no stack serves the machine with the release that is asked for.
        UsageError: a package is named that the lock has not, or see `install`.
        ExternalError, EnvironmentProblem, Interrupted: see `install`.
    """
    from bnbenv.install.compile_inputs import name_of

    work = _Work.on(located, asked, "upgrade", voice, environ)
    wanted, named = work.wanted, [name_of(text) for text in asked.packages]
    for text, name in zip(asked.packages, named, strict=True):
        if name not in JUDGED and not work.lock.find(name):
            raise _absent(text, name, work)
        spec = text.strip()[len(name) :].strip() or None
        if name == "torch":
            wanted = replace(wanted, torch=spec, cuda=None)
        elif name == "bitsandbytes":
            wanted = replace(wanted, bitsandbytes=spec)
        elif normalized(text.strip()) != name:  # more than a name, which says nothing to be kept
            others = tuple(it for it in wanted.packages if name_of(it) != name)
            wanted = replace(wanted, packages=(*others, text))
    judged_anew = not named or bool(set(named) & set(JUDGED))
    choice = work.new_choice(wanted) if judged_anew else work.same_choice()
    let_in = work.refuse_named(choice, asked.packages)
    upgraded = tuple(name for name in named or work.lock.versions if name not in JUDGED)
    return work.carry_out(wanted, choice, let_in, upgrade=upgraded, yes=yes)


def _absent(text: str, name: str, work: _Work) -> UsageError:
    import shlex

    return UsageError(
        f"`{name}` is not in the lock of `{work.known.name}`: there is nothing to upgrade",
        hint=f"bnbenv install {shlex.quote(text)} --in {_word(work.located)}",
        code="bad-request",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One environment that is being changed."""

    located: Located
    asked: ChangeRequest
    command: str
    known: State
    lock: Pylock
    request: CreateRequest
    uv: Uv
    voice: Voice
    environ: Mapping[str, str]

    @classmethod
    def on(
        cls, located: Located, asked: ChangeRequest, command: str, voice: Voice, environ: Mapping[str, str]
    ) -> _Work:
        """Read what the environment was asked to be; of a place with generations, the current one.

        A shell that was opened before the last change still names the generation that it replaced.

        Raises:
            EnvironmentProblem: it is none of bnbenv's own, or its state cannot be read.
        """
        from bnbenv.env import state
        from bnbenv.install.uv import find_uv
        from bnbenv.lockfile import pylock
        from bnbenv.workflows.rebuild import request_of
        from bnbenv.workflows.request import CreateRequest, Wanted

        if located.kind != "bnbenv" or located.place is None:
            raise EnvironmentProblem(
                f"`{located.directory}` was not made by bnbenv: it has no lock to add to",
                hint="bnbenv create qlora (an environment of its own), or --in ENV",
            )
        generation = _generation(located.place, located)
        known = state.read(generation.state_file)
        blank = CreateRequest(
            wanted=Wanted(profile=known.profile),
            name=known.name,
            target=asked.target,
            link_mode=asked.link_mode,
            offline=asked.offline,
            dry_run=asked.dry_run,
            mirrors=asked.mirrors,
            cwd=asked.cwd,
        )
        return cls(
            located=replace(located, directory=generation.directory),
            asked=asked,
            command=command,
            known=known,
            lock=pylock.read(generation.lock_file),
            request=request_of(known, located, blank),
            uv=find_uv(environ, log=voice.ran),
            voice=voice,
            environ=environ,
        )

    @property
    def place(self) -> Place:
        """Where it stands."""
        if self.located.place is None:
            raise AssertionError("an environment without a place is refused before")
        return self.located.place

    @property
    def wanted(self) -> Wanted:
        """What the environment was asked to be."""
        return self.request.wanted

    @property
    def text(self) -> str:
        """The lock as it stands."""
        from bnbenv.lockfile import pylock

        return pylock.dump(self.lock)

    def same_choice(self) -> Choice:
        """The stack that is there, asked for by the ranges that it was proven with."""
        from bnbenv.judge import lookup
        from bnbenv.workflows.choose import recall

        choice = recall(self.known, self.lock, self.request, self.environ)
        stack = choice.solution.stack
        locked = self.lock.versions
        versions = {**locked, "torch": stack.torch.version, "python": stack.python}
        group = lookup.fitting_set(lookup.profile(choice.matrix, stack.profile), versions)
        packages = (
            {name: spec for name, spec in group.packages.items() if name != "bitsandbytes"} if group else {}
        )
        return replace(choice, solution=replace(choice.solution, stack=replace(stack, packages=packages)))

    def new_choice(self, wanted: Wanted) -> Choice:
        """The best stack for what is asked now."""
        from bnbenv.workflows.choose import choose
        from bnbenv.workflows.create import tell_choice

        request = replace(self.request, wanted=wanted)
        otherwise = "the same line where the GPU can be used"
        choice = choose(request, self.voice, self.environ, otherwise=otherwise)
        tell_choice(choice, self.voice)
        return choice

    def refuse_named(self, choice: Choice, texts: tuple[str, ...] | list[str]) -> dict[str, str]:
        """What of these would break the others, where the user insists.

        Raises:
            UnsolvableError: code ``hazard``; the user does not.
        """
        from bnbenv.workflows.hazards import let_in_named

        return let_in_named(
            choice, texts, recorded=self.wanted.anyway, anyway=self.asked.anyway, refusal=self._hazard
        )

    def carry_out(
        self,
        wanted: Wanted,
        choice: Choice,
        let_in: dict[str, str],
        *,
        upgrade: tuple[str, ...],
        yes: bool,
    ) -> Changed:
        """Lock, compare, build, prove, switch."""
        from bnbenv.install.link_mode import wanted_link_mode
        from bnbenv.workflows.create import write_lock
        from bnbenv.workflows.environment import holding
        from bnbenv.workflows.held_back import tell_held_back
        from bnbenv.workflows.room import look_for_room

        wanted = replace(wanted, anyway=_joined(wanted.anyway, tuple(let_in)))
        request = replace(self.request, wanted=wanted)
        try:
            lock = write_lock(
                request, choice, self.uv, self.voice, self.environ, preferred=self.text, upgrade=upgrade
            )
        except ExternalError as problem:
            if problem.no_versions:
                raise self._conflict(problem, choice) from problem
            raise
        let_in |= self._refuse_brought(lock, choice, wanted)
        tell_held_back(self.asked.packages, lock, choice.sources, self.voice, self.environ)
        if let_in:
            wanted = replace(wanted, anyway=_joined(wanted.anyway, tuple(let_in)))
            request = replace(request, wanted=wanted)
        pythons = (minor_release(self.known.python), choice.solution.stack.python)
        changes, removed = differences(self.lock, lock, pythons)
        for change in () if self.asked.dry_run else changes:  # whose answer lists them
            self.voice.progress(f"  {change}")
        realised = carried = None
        nothing = lock.digest == self.lock.digest and wanted == self.wanted
        if nothing:
            self.voice.progress("everything that is asked for is there")
        else:
            look_for_room(
                _unpacked(lock, changes, self.place),
                self.located.directory,
                link_mode=wanted_link_mode(self.asked.link_mode, choice.sources.link_mode),
                building=not self.asked.dry_run,
                voice=self.voice,
                environ=self.environ,
            )
        if not (nothing or self.asked.dry_run):
            if not self.voice.confirm(f"build `{self.known.name}` anew with them?", yes=yes):
                raise Interrupted("nothing was changed")
            with holding(self.located, self.command, self.voice, self.environ) as held:
                realised, carried = self._build(request, choice, lock, held)
        return Changed(
            located=self.located,
            wanted=wanted,
            changes=changes,
            removed=removed,
            let_in=let_in,
            realised=realised,
            carried=carried,
        )

    def _build(
        self, request: CreateRequest, choice: Choice, lock: Pylock, held: Hold
    ) -> tuple[Realised, Carried | None]:
        """A new generation, with what the user had added; a plain directory is changed where it is."""
        from bnbenv.workflows.order import Means, Order
        from bnbenv.workflows.realise import realise_held
        from bnbenv.workflows.rebuild import rebuild

        order = Order(request=request, choice=choice, lock=lock)
        means = Means(uv=self.uv, voice=self.voice, environ=self.environ)
        self._refuse_overtaken()
        if self.place.form == "plain":
            return realise_held(order, self.place, means, held=held), None
        built = rebuild(
            self.located,
            order,
            means,
            self.located.read_installed(),
            self.lock.versions,
            lambda _: None,  # the self-test has the last word
            held=held,
        )
        return built.realised, built.carried

    def _refuse_overtaken(self) -> None:
        """See that what the plan was made for is there still. The environment's lock must be held.

        Raises:
            EnvironmentProblem: code ``locked``.
        """
        from bnbenv.env import state

        try:
            found = _generation(self.place, self.located)
            known = state.read(found.state_file)
        except EnvironmentProblem:
            there = None
        else:
            there = (found.directory, known.lock, known.request)
        if there != (self.located.directory, self.known.lock, self.known.request):
            raise EnvironmentProblem(
                f"`{self.known.name}` was changed by another command since this one looked at it; "
                "nothing was changed",
                hint="give the command again: it starts from what is there now",
                code="locked",
            )

    def _refuse_brought(self, lock: Pylock, choice: Choice, wanted: Wanted) -> dict[str, str]:
        """Judge the new lock as the doctor would: a hazard may come along behind another package."""
        from bnbenv.workflows.hazards import let_in_brought

        return let_in_brought(
            choice,
            self.lock.versions,
            lock.versions,
            recorded=wanted.anyway,
            anyway=self.asked.anyway,
            refusal=self._hazard,
        )

    def _hazard(self, text: str, mechanism: str, way_out: str | None) -> UnsolvableError:
        asked = self.asked.packages
        brought = text not in (*asked, *self.asked.requirements)  # by what was asked for
        own = way_out or self._plain_environment(asked if brought else (text,))
        return UnsolvableError(
            f"`{text}` does not belong into `{self.known.name}`: {mechanism}",
            hint=f"{own}, or --anyway" if own else "--anyway",
            code="hazard",
            data={"blocking": [mechanism], "nearest": []},
        )

    def _conflict(self, problem: ExternalError, choice: Choice) -> ExternalError:
        """The words of uv tell which package wants what; the way out is an environment of its own.

        It is one of the same profile only where that takes what is asked. What no index has would be no
        better there: uv's own advice stands.
        """
        asked = self.asked.packages
        shown = ", ".join(f"`{text}`" for text in asked) or "what the files ask for"
        if problem.code == "package-unavailable":
            head, hint = f"cannot be had for `{self.known.name}`", problem.hint
        else:
            head = f"cannot stand in `{self.known.name}`, which holds {self._rests_on()}"
            own = self._own_environment(asked) if self._takes_alone(choice) else None
            hint = own or self._plain_environment(asked) or problem.hint
        words = problem.message.replace("bnbenv-request depends on", "the environment needs")
        return ExternalError(f"{shown} {head}:\n{words}", hint=hint, code=problem.code)

    def _rests_on(self) -> str:
        """What the environment rests on, for a message."""
        found = [f"{name} {self._locked(name)}" for name in (*JUDGED, "transformers") if self._locked(name)]
        return ", ".join(found)

    def _locked(self, name: str) -> str | None:
        return next((package.version for package in self.lock.find(name)), None)

    def _takes_alone(self, choice: Choice) -> bool:
        """Whether the stack takes what is asked without what else the user has here; uv is asked.

        Where the user has nothing else, it was just refused.
        """
        from bnbenv.workflows.create import write_lock

        alone = replace(
            self.wanted,
            packages=self.asked.packages,
            requirements=self.asked.requirements,
            constraints=self.asked.constraints,
        )
        if not (self.wanted.packages or self.wanted.requirements or self.wanted.constraints):
            return False
        try:
            write_lock(replace(self.request, wanted=alone), choice, self.uv, self.voice, self.environ)
        except BnbenvError:
            return False
        return True

    def _own_environment(self, texts: tuple[str, ...]) -> str | None:
        """The command for another environment of the profile; ``None`` where no package was named."""
        import shlex

        if not texts:
            return None
        added = " ".join(f"--with {shlex.quote(text)}" for text in texts)
        name = shlex.quote(self._name_for(texts))
        return f"bnbenv create {self.known.profile} --name {name} {added} (an environment of its own)"

    def _plain_environment(self, texts: tuple[str, ...]) -> str | None:
        """The commands for a venv that no profile limits; ``None`` where no package was named."""
        import shlex

        if not texts:
            return None
        name, added = shlex.quote(self._name_for(texts)), shlex.join(texts)
        return f"uv venv {name}; uv pip install --python {name} {added} (an environment without a profile)"

    def _name_for(self, texts: tuple[str, ...]) -> str:
        from bnbenv.install.compile_inputs import name_of

        name = self.place.name if self.place.form == "home" else self.known.profile
        return f"{name}-{name_of(texts[0])}"


def differences(
    before: Pylock, after: Pylock, pythons: tuple[str, str]
) -> tuple[tuple[Change, ...], dict[str, str]]:
    """What a new lock adds or changes, and what it has no more; first what all else rests on.

    `pythons` are the minor versions of the interpreter before and after.
    """
    from bnbenv.workflows.mend import Change

    old = {"python": pythons[0], **before.versions}
    new = {"python": pythons[1], **after.versions}
    in_order = dict.fromkeys(("python", *JUDGED, *sorted(new)))
    changes = tuple(
        Change(name=name, version=new[name], present=old.get(name))
        for name in in_order
        if name in new and old.get(name) != new[name]
    )
    return changes, {name: version for name, version in sorted(old.items()) if name not in new}


def _generation(place: Place, named: Located) -> Generation:
    """The current one; where none is, the one that was named.

    Raises:
        EnvironmentProblem: a plain directory was never finished.
    """
    from bnbenv.env import switch

    if place.form == "plain":
        return switch.require_current(place)
    return switch.current(place) or named.generation


def _unpacked(lock: Pylock, changes: tuple[Change, ...], place: Place) -> Pylock:
    """What of a lock will be unpacked: in a plain directory the rest stays where it is."""
    if place.form != "plain":
        return lock
    names = {change.name for change in changes}
    packages = [entry for entry in lock.document["packages"] if entry["name"] in names]
    return replace(lock, document={**lock.document, "packages": packages})


def _joined(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))


def _word(located: Located) -> str:
    import shlex

    place = located.place
    return shlex.quote(place.name if place and place.form == "home" else str(located.directory))
