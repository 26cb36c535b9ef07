"""Rows to and from the plain values of JSON and TOML, field by field, with errors that name the field."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from bnbenv.matrix import rows
from bnbenv.namedtuple import NamedTuple
from bnbenv.units import ComputeCapability, CudaVersion, DottedVersion, DriverVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_REQUIRED: Any = object()
_PROVENANCE_KEYS = ("how", "source", "checked", "confidence")

_capability = lru_cache(maxsize=256)(ComputeCapability.parse)
_cuda = lru_cache(maxsize=256)(CudaVersion.parse)
_dotted = lru_cache(maxsize=256)(DottedVersion.parse)
_driver = lru_cache(maxsize=256)(DriverVersion.parse)


class FieldError(ValueError):
    """A field of a row cannot be read.

    Attributes:
        path: the key path inside the row, such as ``libraries[3].cubins``.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"`{path}`: {reason}")
        self.path = path
        self.reason = reason

    def inside(self, outer: str) -> FieldError:
        """The same fault as seen from the object that holds this one."""
        joint = "" if self.path.startswith("[") or not self.path else "."
        return FieldError(outer + joint + self.path, self.reason)


class Value(NamedTuple):
    """How one kind of value is read and written."""

    read: Callable[[Any], Any]
    write: Callable[[Any], Any]


class Field(NamedTuple):
    """One field of a row; a field that equals its default is not written."""

    name: str
    value: Value
    default: Any = _REQUIRED


class Codec:
    """How a row type is read and written. `key` names the fields that identify and order the rows."""

    __slots__ = ("_blank", "_places", "_provenance_place", "_required", "fields", "key", "provenance", "type")

    def __init__(
        self,
        kind: Any,
        fields: tuple[Field, ...],
        *,
        key: tuple[str, ...],
        provenance: bool = True,
    ) -> None:
        self.type = kind
        self.fields = fields
        self.key = key
        self.provenance = provenance
        # A row is filled by place: its fields in the order of its type, then what tells its provenance.
        order = kind._fields
        defaults = {field.name: field.default for field in fields}
        self._places = {field.name: (order.index(field.name), field.value.read) for field in fields}
        self._required = {field.name for field in fields if field.default is _REQUIRED}
        self._blank: list[Any] = [defaults.get(name) for name in order]
        if provenance:
            self._provenance_place = order.index("provenance")
            self._places |= {name: (len(order) + at, _same) for at, name in enumerate(_PROVENANCE_KEYS)}
            self._blank += [None] * len(_PROVENANCE_KEYS)

    def read(self, data: Any) -> Any:
        """Build the row.

        Raises:
            FieldError: a field is missing, unknown or malformed.
        """
        if not isinstance(data, dict):
            raise FieldError("", f"expected a table, found {type(data).__name__}")
        values = self._blank.copy()
        places = self._places
        try:
            for name, given in data.items():
                place, read = places[name]
                values[place] = read(given)
            if self.provenance:
                *values, how, source, checked, confidence = values
                values[self._provenance_place] = _provenance(how, source, checked, confidence)
        except (KeyError, TypeError, ValueError):  # looked at closely only where there is something to find
            self._refuse(data)
        if not self._required <= data.keys():
            self._refuse(data)
        return tuple.__new__(self.type, values)

    def _refuse(self, data: dict[str, Any]) -> NoReturn:
        """Name the first fault of a table that cannot be read."""
        readers = {field.name: field.value.read for field in self.fields}
        for name in sorted(self._required):
            if name not in data:
                raise FieldError(name, "is missing")
        for name, given in data.items():
            try:
                if name in readers:
                    readers[name](given)
            except FieldError as error:
                raise error.inside(name) from None
            except (TypeError, ValueError) as error:
                raise FieldError(name, str(error)) from None
            if name not in readers and not (self.provenance and name in _PROVENANCE_KEYS):
                raise FieldError(name, "is not a known key")
        for name in _PROVENANCE_KEYS[:3]:
            if name not in data:
                raise FieldError(
                    name, "is missing: every row says how it was established, from what, and when"
                )
        _read_provenance(*(data.get(name) for name in _PROVENANCE_KEYS))
        raise AssertionError("a table was refused in which there is no fault")

    def write(self, row: Any, *, explicit: frozenset[str] = frozenset()) -> dict[str, Any]:
        """The row as plain values, keys in the order of `fields`, then the provenance.

        Args:
            explicit: fields to write even where they equal their default.
        """
        data: dict[str, Any] = {}
        for name, value, default in self.fields:
            held = getattr(row, name)
            if default is _REQUIRED or held != default or name in explicit:
                data[name] = value.write(held)
        if self.provenance:
            provenance = row.provenance
            data |= {"how": provenance.how, "source": provenance.source, "checked": provenance.checked}
            if provenance.confidence is not None:
                data["confidence"] = provenance.confidence
        return data

    def identity(self, data: Mapping[str, Any]) -> str:
        """The row's key for messages, as far as it can be read."""
        return " ".join(str(data[name]) for name in self.key if name in data) or "without a key"


def _read_provenance(how: Any, source: Any, checked: Any, confidence: Any) -> rows.Provenance:
    for name, text in (("how", how), ("source", source), ("checked", checked)):
        if not isinstance(text, str) or not text.strip():
            raise FieldError(name, "must be a text that is not empty")
    if how not in ("measured", "published"):
        raise FieldError("how", f"must be `measured` or `published`, not {how!r}")
    if not _is_date(checked):
        raise FieldError("checked", f"must be a date YYYY-MM-DD, not {checked!r}")
    if confidence not in (None, "high", "medium", "low"):
        raise FieldError("confidence", f"must be `high`, `medium` or `low`, not {confidence!r}")
    return rows.Provenance(how=how, source=source, checked=checked, confidence=confidence)


_provenance = lru_cache(maxsize=1024)(_read_provenance)  # one document is the source of hundreds of rows


@lru_cache(maxsize=64)
def _is_date(text: str) -> bool:
    from datetime import date

    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _read_text(value: Any) -> str:
    if value.__class__ is not str:
        raise TypeError(f"expected a text, found {value!r}")
    return value


def _read_number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"expected a whole number, found {value!r}")
    return value


def _read_truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"expected true or false, found {value!r}")
    return value


def _read_count_or_truth(value: Any) -> int | bool:
    if not isinstance(value, int):  # true and false are numbers too
        raise TypeError(f"expected a number, true or false, found {value!r}")
    return value


def _same(value: Any) -> Any:
    return value


_TEXT = Value(_read_text, _same)
_NUMBER = Value(_read_number, _same)
_TRUTH = Value(_read_truth, _same)
_COUNT_OR_TRUTH = Value(_read_count_or_truth, _same)


def _parsed(parse: Callable[[str], Any]) -> Value:
    """`parse` is cached, and a number in place of a text fails in it."""

    def read(value: Any) -> Any:
        try:
            return parse(value)
        except (AttributeError, TypeError):
            raise TypeError(f"expected a text, found {value!r}") from None

    return Value(read, str)


_CAPABILITY = _parsed(_capability)
_CUDA = _parsed(_cuda)
_DOTTED = _parsed(_dotted)
_DRIVER = _parsed(_driver)


def _optional(value: Value) -> Value:
    read_some, write_some = value

    def read(given: Any) -> Any:
        return None if given is None else read_some(given)

    return Value(read, lambda held: None if held is None else write_some(held))


def _choice(*allowed: str) -> Value:
    known = {name: name for name in allowed}

    def read(value: Any) -> str:
        try:
            return known[value]
        except (KeyError, TypeError):
            raise ValueError(f"must be one of {', '.join(allowed)}, not {value!r}") from None

    return Value(read, _same)


def _many(value: Value) -> Value:
    @lru_cache(maxsize=4096)  # the same lists stand in hundreds of rows
    def read_texts(given: tuple[str, ...]) -> tuple[Any, ...]:
        read_one = value.read
        return tuple([read_one(entry) for entry in given])

    def read(given: Any) -> tuple[Any, ...]:
        if not isinstance(given, list):
            raise TypeError(f"expected a list, found {given!r}")
        return read_texts(tuple(given))  # a table in it is no text, and no key of the cache either

    return Value(read, lambda held: [value.write(entry) for entry in held])


def _nested(codec: Codec) -> Value:
    def read(given: Any) -> tuple[Any, ...]:
        if not isinstance(given, list):
            raise TypeError(f"expected a list, found {given!r}")
        built = []
        for position, entry in enumerate(given):
            try:
                built.append(codec.read(entry))
            except FieldError as error:  # noqa: PERF203 - costs nothing where nothing is raised
                raise error.inside(f"[{position}]") from None
        return tuple(built)

    return Value(read, lambda held: [codec.write(entry) for entry in held])


def _mapping(value: Value) -> Value:
    read_one = value.read

    def read(given: Any) -> dict[str, Any]:
        if not isinstance(given, dict):
            raise TypeError(f"expected a table, found {given!r}")
        return {key: read_one(entry) for key, entry in given.items()}

    return Value(read, lambda held: {key: value.write(entry) for key, entry in held.items()})


def _read_texts(given: Any) -> tuple[str, ...]:
    if not isinstance(given, list):
        raise TypeError(f"expected a list, found {given!r}")
    for entry in given:
        if entry.__class__ is not str:
            raise TypeError(f"expected a text, found {entry!r}")
    return tuple(given)


_TEXTS = Value(_read_texts, list)
_CAPABILITIES = _many(_CAPABILITY)
_OS = _choice("linux", "windows", "macos")
_ARCH = _choice("x86_64", "aarch64")
_SEEN = _choice("yes", "no", "not-run")

LIBRARY = Codec(
    rows.NativeLibrary,
    (
        Field("name", _TEXT),
        Field("backend", _choice("cpu", "cuda", "rocm", "xpu", "mps")),
        Field("toolkit", _optional(_TEXT), None),
        Field("cubins", _CAPABILITIES, ()),
        Field("ptx", _CAPABILITIES, ()),
        Field("ptx_linkage", _choice("relocatable", "executable"), None),
        Field("gfx", _TEXTS, ()),
        Field("needed", _TEXTS, ()),
        Field("run_paths", _TEXTS, ()),
        Field("symbol_versions", _mapping(_DOTTED), {}),
    ),
    key=("name",),
    provenance=False,
)

_PACKAGE_SET = Codec(
    rows.PackageSet,
    (
        Field("name", _TEXT),
        Field("python", _TEXT),
        Field("torch", _TEXT),
        Field("packages", _mapping(_TEXT)),
        Field("cuda", _TEXT, ""),
        Field("platforms", _TEXTS, ()),
    ),
    key=("name",),
    provenance=False,
)

_MODEL_MODULE = Codec(
    rows.ModelModule,
    (
        Field("name", _TEXT),
        Field("kind", _choice("embedding", "linear", "norm", "head", "parameter")),
        Field("weight", _TEXTS),
        Field("bias", _TEXT, ""),
        Field("when", _TEXT, ""),
        Field("each", _TEXT, ""),
    ),
    key=("name",),
    provenance=False,
)

_GPU = Codec(
    rows.GpuRow,
    (
        Field("name", _TEXT),
        Field("pci_ids", _TEXTS, ()),
        Field("capabilities", _CAPABILITIES, ()),
        Field("gfx", _TEXTS, ()),
    ),
    key=("name",),
)

_WHEEL = Codec(
    rows.BitsandbytesWheel,
    (
        Field("version", _TEXT),
        Field("wheel", _TEXT),
        Field("sha256", _TEXT),
        Field("size", _optional(_NUMBER), None),
        Field("platform", _TEXT),
        Field("os", _OS),
        Field("arch", _ARCH),
        Field("uploaded", _TEXT),
        Field("requires_python", _optional(_TEXT)),
        Field("requires_torch", _optional(_TEXT)),
        Field("requires", _TEXTS),
        Field("libraries", _nested(LIBRARY)),
        Field("broken", _optional(_TEXT), None),
        Field("l4t", _optional(_NUMBER), None),
    ),
    key=("version", "platform"),
)

CODECS: Mapping[str, Codec] = {
    "bitsandbytes": _WHEEL,
    "bitsandbytes_published": _WHEEL,
    "torch": Codec(
        rows.TorchBuild,
        (
            Field("version", _TEXT),
            Field("build", _TEXT),
            Field("index", _TEXT),
            Field("local", _optional(_TEXT)),
            Field("os", _OS),
            Field("arch", _ARCH),
            Field("pythons", _TEXTS),
            Field("cuda", _optional(_CUDA), None),
            Field("rocm", _optional(_TEXT), None),
            Field("cubins", _CAPABILITIES, ()),
            Field("ptx", _CAPABILITIES, ()),
            Field("gfx", _TEXTS, ()),
            Field("oneapi", _optional(_TEXT), None),
            Field("glibc", _optional(_DOTTED), None),
            Field("macos", _optional(_DOTTED), None),
            Field("triton", _optional(_TEXT), None),
            Field("nvidia", _TEXTS, ()),
            Field("size", _optional(_NUMBER), None),
            Field("symbol_versions", _mapping(_DOTTED), {}),
            Field("l4t", _optional(_NUMBER), None),
        ),
        key=("version", "build", "index", "os", "arch"),
    ),
    "driver_floors": Codec(
        rows.DriverFloor,
        (
            Field("major", _NUMBER),
            Field("linux", _DRIVER),
            Field("windows", _DRIVER),
            Field("windows_arm", _optional(_DRIVER), None),
        ),
        key=("major",),
    ),
    "driver_branches": Codec(
        rows.DriverBranch, (Field("branch", _NUMBER), Field("cuda", _CUDA)), key=("branch",)
    ),
    "architectures": Codec(
        rows.ArchitectureDrivers,
        (
            Field("name", _TEXT),
            Field("capabilities", _CAPABILITIES),
            Field("first", _optional(_NUMBER), None),
            Field("last", _optional(_NUMBER), None),
        ),
        key=("name",),
    ),
    "toolkits": Codec(
        rows.Toolkit,
        (
            Field("release", _TEXT),
            Field("linux", _optional(_DRIVER), None),
            Field("windows", _optional(_DRIVER), None),
        ),
        key=("release",),
    ),
    "capabilities": Codec(
        rows.CapabilityRow,
        (
            Field("capability", _CAPABILITY),
            Field("first", _CUDA),
            Field("last", _optional(_CUDA), None),
            Field("tegra", _TRUTH, default=False),
        ),
        key=("capability",),
    ),
    "forward_compatibility": Codec(
        rows.ForwardCompatibility,
        (Field("gpus", _TEXT), Field("supported", _TRUTH), Field("packages", _TEXT)),
        key=("gpus",),
    ),
    "gpus": _GPU,
    "gpus_named": _GPU,
    "indexes": Codec(
        rows.IndexRow,
        (
            Field("name", _TEXT),
            Field("family", _TEXT),
            Field("url", _optional(_TEXT), None),
            Field("companions", _TEXTS, ()),
        ),
        key=("name",),
    ),
    "floors": Codec(
        rows.Floor,
        (
            Field("package", _TEXT),
            Field("versions", _TEXT),
            Field("needs", _mapping(_TEXT)),
            Field("effect", _TEXT),
        ),
        key=("package", "versions"),
    ),
    "profiles": Codec(
        rows.Profile,
        (
            Field("name", _TEXT),
            Field("summary", _TEXT),
            Field("min_capability", _optional(_CAPABILITY), None),
            Field("devices", _choice("any", "gpu"), "any"),
            Field("excludes", _TEXTS, ()),
            Field("wanted_by", _TEXT, ""),
            Field("note", _TEXT, ""),
            Field("builds", _TEXTS, ()),
            Field("imports", _TEXTS, ()),
            Field("sets", _nested(_PACKAGE_SET)),
        ),
        key=("name",),
    ),
    "hazards": Codec(
        rows.Hazard,
        (
            Field("package", _TEXT),
            Field("versions", _TEXT),
            Field("when", _mapping(_TEXT)),
            Field("absent", _TEXTS, ()),
            Field("itself", _TRUTH, default=False),
            Field("mechanism", _TEXT),
            Field("instead", _optional(_TEXT), None),
            Field("successor", _optional(_TEXT), None),
        ),
        key=("package", "versions", "mechanism"),
    ),
    "coexistence": Codec(
        rows.Coexistence,
        (
            Field("name", _TEXT),
            Field("packages", _mapping(_TEXT)),
            Field("beside", _mapping(_TEXT)),
            Field("resolves", _SEEN),
            Field("installs", _SEEN, "not-run"),
            Field("imports", _SEEN, "not-run"),
            Field("quantised_layer", _SEEN, "not-run"),
            Field("other_layer", _SEEN, "not-run"),
            Field("note", _TEXT, ""),
        ),
        key=("name",),
    ),
    "known_faults": Codec(
        rows.KnownFault,
        (
            Field("id", _TEXT),
            Field("package", _TEXT),
            Field("versions", _TEXT),
            Field("device", _TEXT),
            Field("cpu_flags", _TEXTS, ()),
            Field("checks", _TEXTS),
            Field("dtypes", _TEXTS, ()),
            Field("shapes", _mapping(_TEXT), {}),
            Field("summary", _TEXT),
            Field("workaround", _TEXT),
            Field("reproduction", _TEXT),
        ),
        key=("id",),
    ),
    "causes": Codec(
        rows.Cause,
        (
            Field("id", _TEXT),
            Field("definition", _TEXT),
            Field("differs", _TEXT),
            Field("remedy", _TEXT),
            Field("repair", _many(_choice(*get_args(rows.RepairPart))), ()),
            Field("typed", _many(_choice(*get_args(rows.TypedCommand))), ()),
        ),
        key=("id",),
    ),
    "loaders": Codec(
        rows.LoaderRule,
        (
            Field("versions", _TEXT),
            Field("match", _choice("exact", "nearest")),
            Field("missing", _choice("raise", "cpu", "mock")),
            Field("override", _TEXTS),
            Field("override_rule", _TEXT),
            Field("override_place", _choice("version", "end"), "version"),
            Field("nocublaslt_below", _optional(_CAPABILITY), None),
            Field("plain_for", _CAPABILITIES, ()),
            Field("fails_below", _optional(_CAPABILITY), None),
        ),
        key=("versions",),
    ),
    "claims": Codec(
        rows.Claim,
        (
            Field("id", _TEXT),
            Field("claim", _TEXT),
            Field(
                "verdict",
                _choice("true", "outdated", "misleading", "partly-true", "unsupported", "harmful", "false"),
            ),
            Field("evidence", _TEXT),
        ),
        key=("id",),
    ),
    "broken": Codec(
        rows.BrokenRelease,
        (Field("versions", _TEXT), Field("os", _many(_OS)), Field("reason", _TEXT)),
        key=("versions",),
    ),
    "caveats": Codec(
        rows.Caveat,
        (
            Field("versions", _TEXT),
            Field("accelerator", _choice("", "cuda", "rocm", "xpu", "mps", "cpu")),
            Field("severity", _choice("error", "warning")),
            Field("reason", _TEXT),
            Field("mended", _TEXT),
            Field("profile", _TEXT, ""),
        ),
        key=("versions", "accelerator"),
    ),
    "verified": Codec(
        rows.VerifiedStack,
        (
            Field("torch", _TEXT),
            Field("build", _TEXT),
            Field("bitsandbytes", _TEXT),
            Field("python", _TEXT),
            Field("os", _OS),
            Field("arch", _ARCH),
            Field("accelerator", _choice("cuda", "rocm", "xpu", "mps", "cpu")),
            Field("device", _TEXT),
            Field("capability", _optional(_TEXT)),
            Field("driver", _optional(_TEXT)),
            Field("level", _choice("quick", "full", "train")),
            Field("verdict", _choice("passed", "degraded")),
            Field("digest", _TEXT),
        ),
        key=("torch", "build", "bitsandbytes", "os", "arch", "device", "digest"),
    ),
    "torch_published": Codec(
        rows.PublishedBuild,
        (
            Field("releases", _TEXTS),
            Field("build", _TEXT),
            Field("os", _OS),
            Field("arch", _ARCH),
            Field("pythons", _TEXTS),
            Field("cubins", _CAPABILITIES, ()),
            Field("gfx", _TEXTS, ()),
            Field("glibc", _optional(_DOTTED), None),
            Field("triton", _optional(_TEXT), None),
            Field("oneapi", _optional(_TEXT), None),
            Field("index", _optional(_TEXT), None),
            Field("local", _optional(_TEXT), None),
            Field("l4t", _optional(_NUMBER), None),
        ),
        key=("build", "os", "arch", "releases"),
    ),
    "symptoms": Codec(
        rows.Symptom,
        (
            Field("id", _TEXT),
            Field("kind", _choice("failure", "symptom", "notice", "success", "fact")),
            Field("literals", _TEXTS),
            Field("pattern", _TEXT),
            Field("trust", _NUMBER, 2),
        ),
        key=("id",),
    ),
    "implications": Codec(
        rows.Implication,
        (
            Field("id", _TEXT),
            Field("cause", _TEXT),
            Field("weight", _NUMBER),
            Field("all", _TEXTS, ()),
            Field("any", _TEXTS, ()),
            Field("none", _TEXTS, ()),
        ),
        key=("id",),
    ),
    "precedences": Codec(rows.Precedence, (Field("cause", _TEXT), Field("over", _TEXTS)), key=("cause",)),
    "questions": Codec(
        rows.Question,
        (
            Field("fact", _TEXT),
            Field("ask", _TEXT),
            Field("command", _TEXT),
            Field("all", _TEXTS, ()),
            Field("none", _TEXTS, ()),
        ),
        key=("fact", "command"),
    ),
    "model_types": Codec(
        rows.ModelType,
        (
            Field("names", _TEXTS),
            Field("transformers", _TEXT),
            Field("defaults", _mapping(_COUNT_OR_TRUTH)),
            Field("attention", _choice("sdpa", "eager"), "sdpa"),
            Field("modules", _nested(_MODEL_MODULE)),
        ),
        key=("names", "transformers"),
    ),
}
