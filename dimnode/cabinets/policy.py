"""A data owner's policy, and the decision it makes about one request.

Rule: default deny. A request is allowed only when a policy exists and every one of its conditions holds; the first that
does not is named by its code, in the order of `CODES`. Whoever asks learns why, and not more about the data than that.

What a refusal tells. A submitter who named the rows knows how many they are, so the reason may repeat the count. When
the rows came from a condition on the data, their number is itself an answer, and exactly the small one that
`min_cohort` is to hide: then only the minimum is told. (That the cohort is too small is still one bit; so refused
queries should count towards the day's quota.)
Differencing. Two allowed queries over row sets that differ in a few rows reveal those rows by subtraction. So a query
is refused when its rows differ from those of an earlier one by fewer than `min_cohort` rows, unless it names them by
the very same conditions (another model on the same patients): that reveals no smaller group. Other conditions that
happen to pick the same rows are refused too: were they answered, a refusal would say that the patient whom they leave
out is among the rows. Compare with the earlier queries of *all* submitters: two may share what they learn. Chains of
three and more overlapping queries are not caught by this; noise (differential privacy) is the answer to those.
Picking single persons. A minimum cohort hides nobody from one who can name nine others: whoever may write conditions on
a birthday, a number or a measure asks about nine rows that they know and one that they do not. So conditions may use
only the columns that the policy lists in `where`, and it lists none unless the owner writes them down.
Who reads the answer. A job's owner sees every answer; whoever has seen a spec could own its tasks. So the owner of the
job has to be an allowed submitter, not only the signer of the spec.
`purpose` is text for people and for the use log: no code can judge it.
Pure: no I/O, no clock.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from dimnode.errors import ConfigError, PeerFault
from dimnode.limits import LIMITS
from dimnode.records.ids import RECORD_PREFIX, cid_bytes, peer_bytes

OPERATIONS: Final = frozenset({"evaluate", "statistics", "infer"})

OUTPUT_CLASS_OF: Final = {"evaluate": "count", "statistics": "mean", "infer": "predictions"}
"""What leaves the cabinet with each operation. `predictions` are values of single rows: never allowed unless named."""

OUTPUT_CLASSES: Final = frozenset(OUTPUT_CLASS_OF.values())

ANY: Final = "any"

CODES: Final = {
    "E-cabinet-01": "there is no such cabinet here",
    "E-cabinet-02": "the policy has expired",
    "E-cabinet-03": "the submitter is not allowed",
    "E-cabinet-04": "the operation is not allowed",
    "E-cabinet-05": "the model is not allowed",
    "E-cabinet-11": "a condition uses a column that is not allowed",
    "E-cabinet-06": "the cohort is below its minimum",
    "E-cabinet-07": "the quota of the day is used up",
    "E-cabinet-08": "the kind of output is not allowed",
    "E-cabinet-09": "the rows differ too little from those of an earlier query",
}
"""Every refusal, in the order in which it is looked for."""

_KEYS = frozenset(
    {"operations", "submitters", "models", "output_classes", "min_cohort", "queries_per_day"}
    | {"expires", "expires_ms", "purpose", "where"}
)

_REASON_CHARS_MAX: Final = 256
"""What the signed ruling has room for."""

Allowed = frozenset[bytes] | Literal["any"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What an owner allows. `Policy()` allows nothing. `expires_ms` 0 means never; `models` are manifest ids.

    `where` names the columns that a request's conditions may use.
    """

    operations: frozenset[str] = frozenset()
    submitters: Allowed = frozenset()
    models: Allowed = frozenset()
    output_classes: frozenset[str] = frozenset({"count", "mean"})
    min_cohort: int = LIMITS.cabinets.min_cohort_default
    queries_per_day: int = LIMITS.cabinets.queries_per_day_default
    expires_ms: int = 0
    purpose: str = ""
    where: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Request:
    """One query: who asks, what for, with which model (b"" for none), over how many rows, when.

    `rows` is the set of rows as a bit mask (`rows_mask`), 0 when it is not known. `rows_named` says that the submitter
    listed the rows, so that their count is no news to them. `owner` is the peer that gets the answer, b"" when it is
    the submitter. `repeated` says that these very conditions picked these very rows in an earlier allowed query.
    `where` names the columns that the conditions use.
    """

    submitter: bytes
    operation: str
    model: bytes
    cohort: int
    purpose: str
    at_ms: int
    rows: int = 0
    rows_named: bool = False
    owner: bytes = b""
    repeated: bool = False
    where: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Ruling:
    """The decision. `code` is "" when allowed; `reason` is for people and stands in the signed ruling."""

    allowed: bool
    code: str
    reason: str


def decide(policy: Policy | None, request: Request, used_today: int, previous: Sequence[int] = ()) -> Ruling:
    """Allow or refuse. `policy` is None for a cabinet that this node does not have.

    `used_today`: queries already answered or refused today. `previous`: row masks of earlier allowed queries of this
    cabinet, by anyone; needs `request.rows`.
    """
    assert not request.rows or request.rows.bit_count() == request.cohort, "the cohort is the number of rows"
    if policy is None:
        return _refusal("E-cabinet-01", "there is no such cabinet here")
    if policy.expires_ms and request.at_ms >= policy.expires_ms:
        return _refusal("E-cabinet-02", "the policy of this cabinet has expired")
    if not _allows(policy.submitters, request.submitter):
        return _refusal("E-cabinet-03", "the owner does not allow this submitter")
    if request.owner and not _allows(policy.submitters, request.owner):
        return _refusal("E-cabinet-03", "the owner does not allow the peer that would get the answer")
    if request.operation not in policy.operations:
        return _refusal("E-cabinet-04", f"the owner does not allow the operation {request.operation!r}")
    modelless = request.operation == "statistics" and not request.model  # its operation alone bounds what it may do
    if not modelless and not _allows(policy.models, request.model):
        return _refusal("E-cabinet-05", "the owner does not allow this model")
    if forbidden := sorted(request.where - policy.where):
        only = f"only on {_words(policy.where)}" if policy.where else "on none at all"
        return _refusal("E-cabinet-11", f"no condition on {forbidden[0][:64]!r} is allowed, {only}"[:_REASON_CHARS_MAX])
    if request.cohort < policy.min_cohort:
        cohort = f"cohort {request.cohort}" if request.rows_named else "the cohort"
        return _refusal("E-cabinet-06", f"{cohort} is below its minimum of {policy.min_cohort}")
    if used_today >= policy.queries_per_day:
        return _refusal("E-cabinet-07", f"all {policy.queries_per_day} queries of this day are used")
    output_class = OUTPUT_CLASS_OF.get(request.operation, "")
    if output_class not in policy.output_classes:
        return _refusal("E-cabinet-08", f"the owner lets no {output_class} out, only {_words(policy.output_classes)}")
    if not request.repeated and differs_too_little(previous, request.rows, policy.min_cohort):
        return _refusal("E-cabinet-09", f"the rows differ from an earlier query's by fewer than {policy.min_cohort}")
    return Ruling(True, "", "the owner's policy allows it")


def differs_too_little(previous: Sequence[int], rows: int, min_cohort: int) -> bool:
    """True when `rows` and one of the earlier row masks differ in fewer than `min_cohort` rows, also when in none.

    With a minimum of 1 single rows may be told, and nothing differs too little.

    A mask of 0 rows says nothing and is passed over, on either side.
    """
    if rows == 0 or min_cohort <= 1:
        return False
    return any(earlier and (earlier ^ rows).bit_count() < min_cohort for earlier in previous)


def conditions_digest(where: Iterable[tuple[str, str, int]]) -> bytes:
    """16 bytes that are equal for the same set of conditions, in whatever order they stand."""
    return hashlib.sha256(repr(sorted(set(where))).encode()).digest()[:16]


def rows_mask(rows: Iterable[int]) -> int:
    """A set of row numbers as an integer whose bit i says that row i is in. Raises `PeerFault`: out of range."""
    numbers = set(rows)
    if not numbers:
        return 0
    if min(numbers) < 0 or max(numbers) >= LIMITS.cabinets.rows_max:
        raise PeerFault("cabinet: row number")
    bits = bytearray(max(numbers) // 8 + 1)
    for row in numbers:
        bits[row >> 3] |= 1 << (row & 7)
    return int.from_bytes(bits, "little")


def parse_policy(settings: Mapping[str, object]) -> Policy:
    """The policy that an owner wrote as TOML, already parsed into a map. Raises `ConfigError` E-cabinet-10.

    operations, submitters, models: required, so that whatever is allowed was written down. submitters: peer ids as
    text, or "any". models: manifest ids as text, or "any". where: columns that conditions may use, by default none.
    output_classes, min_cohort, queries_per_day, purpose: optional. expires: a TOML date-time with an offset; or
    expires_ms, milliseconds since 1970; without either, never.
    """
    unknown = sorted(settings.keys() - _KEYS)
    if unknown:
        raise _mistake(f"unknown key {unknown[0]!r}", f"the keys are {_words(_KEYS)}")
    missing = [key for key in ("operations", "submitters", "models") if key not in settings]
    if missing:
        raise _mistake(f"{missing[0]!r} is missing", 'write what is allowed; [] allows nothing, "any" every id')
    limits = LIMITS.cabinets
    policy = Policy(
        operations=_vocabulary(settings, "operations", OPERATIONS),
        submitters=_ids(settings, "submitters", peer_bytes),
        models=_ids(settings, "models", _manifest_id),
        output_classes=_vocabulary(settings, "output_classes", OUTPUT_CLASSES, Policy().output_classes),
        min_cohort=_number(settings, "min_cohort", limits.min_cohort_default, 1, limits.rows_max),
        queries_per_day=_number(
            settings, "queries_per_day", limits.queries_per_day_default, 0, limits.queries_per_day_max
        ),
        expires_ms=_expiry_ms(settings),
        purpose=_purpose(settings),
        where=_columns(settings),
    )
    for operation in sorted(policy.operations):
        if OUTPUT_CLASS_OF[operation] not in policy.output_classes:
            hint = f"add {OUTPUT_CLASS_OF[operation]!r} to output_classes, or leave the operation out"
            raise _mistake(f"{operation!r} would always be refused for its kind of output", hint)
    return policy


def policy_payload(policy: Policy) -> dict[str, int | str | list[str] | list[bytes]]:
    """The policy's own fields of a cmp/1 `policy` record (the caller adds cabinet and the common fields).

    Lists are sorted. What is absent: `submitters` or `models` when any is allowed, `expires_ms` when never, `purpose`
    and `x_where` when empty. (`x_where` is no field of the kind's first schema, which allows any `x_` key.)
    """
    payload: dict[str, int | str | list[str] | list[bytes]] = {
        "operations": sorted(policy.operations),
        "min_cohort": policy.min_cohort,
        "output_classes": sorted(policy.output_classes),
        "queries_per_day": policy.queries_per_day,
    }
    if policy.submitters != ANY:
        payload["submitters"] = sorted(policy.submitters)
    if policy.models != ANY:
        payload["models"] = sorted(policy.models)
    if policy.expires_ms:
        payload["expires_ms"] = policy.expires_ms
    if policy.purpose:
        payload["purpose"] = policy.purpose
    if policy.where:
        payload["x_where"] = sorted(policy.where)
    return payload


def _mistake(what: str, hint: str) -> ConfigError:
    return ConfigError("E-cabinet-10", f"policy: {what}", hint=hint)


def _list_of_text(settings: Mapping[str, object], key: str) -> list[str]:
    value = settings[key]
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise _mistake(f"{key!r} is not a list of texts", f'for example {key} = ["..."]')
    if len(value) > LIMITS.records.list_entries_max:
        raise _mistake(f"{key!r} has {len(value)} entries", f"at most {LIMITS.records.list_entries_max} fit a record")
    return value


def _vocabulary(
    settings: Mapping[str, object], key: str, known: frozenset[str], default: frozenset[str] = frozenset()
) -> frozenset[str]:
    if key not in settings:
        return default
    words = frozenset(_list_of_text(settings, key))
    if not words <= known:
        raise _mistake(f"{key!r} does not know {min(words - known)!r}", f"choose from {_words(known)}")
    return words


def _columns(settings: Mapping[str, object]) -> frozenset[str]:
    limits = LIMITS.cabinets
    names = frozenset(_list_of_text(settings, "where")) if "where" in settings else frozenset()
    if len(names) > limits.where_columns_max or any(not 0 < len(name) <= limits.column_chars_max for name in names):
        most = f"at most {limits.where_columns_max} columns, each of 1 to {limits.column_chars_max} characters"
        raise _mistake("'where' names too many columns, or one too long", most)
    return names


def _ids(settings: Mapping[str, object], key: str, parse: Callable[[str], bytes]) -> Allowed:
    if settings[key] == ANY:
        return ANY
    ids = set()
    for text in _list_of_text(settings, key):
        try:
            ids.add(parse(text))
        except PeerFault:
            raise _mistake(
                f"{key!r} holds {text[:80]!r}, which is no such id", "copy the whole id as dim prints it"
            ) from None
    return frozenset(ids)


def _manifest_id(text: str) -> bytes:
    name = cid_bytes(text)
    if not name.startswith(RECORD_PREFIX):
        raise PeerFault("a blob, not a manifest")
    return name


def _number(settings: Mapping[str, object], key: str, default: int, least: int, most: int) -> int:
    number = settings.get(key, default)
    if type(number) is not int or not least <= number <= most:
        raise _mistake(f"{key!r} is {number!r}", f"a whole number from {least} to {most}")
    return number


def _expiry_ms(settings: Mapping[str, object]) -> int:
    if "expires" not in settings:
        return _number(settings, "expires_ms", 0, 0, 2**63 - 1)
    moment = settings["expires"]
    if "expires_ms" in settings or not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise _mistake("'expires' is not one date-time with an offset", "for example expires = 2030-01-31T00:00:00Z")
    since_1970 = moment - datetime(1970, 1, 1, tzinfo=UTC)
    if since_1970 <= timedelta():
        raise _mistake(f"'expires' is {moment.isoformat()}", "a moment after 1970")
    return since_1970 // timedelta(milliseconds=1)


def _purpose(settings: Mapping[str, object]) -> str:
    purpose = settings.get("purpose", "")
    if not isinstance(purpose, str) or len(purpose) > LIMITS.cabinets.purpose_chars_max:
        raise _mistake("'purpose' is no text or too long", f"at most {LIMITS.cabinets.purpose_chars_max} characters")
    return purpose


def _allows(allowed: Allowed, name: bytes) -> bool:
    return allowed == ANY or name in allowed


def _words(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _refusal(code: str, reason: str) -> Ruling:
    return Ruling(False, code, reason)
