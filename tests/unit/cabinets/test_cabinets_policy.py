"""A data owner's policy: default deny, one reason at a time, nothing told that need not be."""

import tomllib
from dataclasses import replace

import pytest

from dimnode.cabinets.policy import (
    ANY,
    CODES,
    OPERATIONS,
    OUTPUT_CLASS_OF,
    Policy,
    Request,
    Ruling,
    decide,
    differs_too_little,
    parse_policy,
    policy_payload,
    rows_mask,
)
from dimnode.errors import ConfigError, PeerFault
from dimnode.limits import LIMITS
from dimnode.records.ids import blob_cid, cid_text, peer_of_key, peer_text, record_id

ALBA, EZRA = peer_of_key(b"a" * 32), peer_of_key(b"e" * 32)
MODEL, OTHER_MODEL = record_id(b"model"), record_id(b"other")
NOW = 1_800_000_000_000

POLICY = Policy(
    operations=frozenset({"evaluate", "statistics"}),
    submitters=frozenset({ALBA}),
    models=frozenset({MODEL}),
    queries_per_day=20,
    expires_ms=NOW + 1,
    purpose="tumour research",
)
REQUEST = Request(ALBA, "evaluate", MODEL, 190, "tumour research", NOW)


def code(policy: Policy | None, request: Request, used_today: int = 0, previous: tuple[int, ...] = ()) -> str:
    ruling = decide(policy, request, used_today, previous)
    assert ruling.allowed == (ruling.code == "")
    assert ruling.reason
    return ruling.code


def test_what_the_policy_allows_is_allowed():
    assert decide(POLICY, REQUEST, 19) == Ruling(True, "", "the owner's policy allows it")


def test_an_empty_policy_allows_nothing():
    assert code(Policy(), REQUEST) == "E-cabinet-03"
    assert code(Policy(submitters=ANY), REQUEST) == "E-cabinet-04"
    assert code(Policy(submitters=ANY, operations=OPERATIONS), REQUEST) == "E-cabinet-05"


@pytest.mark.parametrize(
    ("policy", "request_", "used", "expected"),
    [
        (None, REQUEST, 0, "E-cabinet-01"),
        (POLICY, replace(REQUEST, at_ms=NOW + 1), 0, "E-cabinet-02"),
        (POLICY, replace(REQUEST, submitter=EZRA), 0, "E-cabinet-03"),
        (POLICY, replace(REQUEST, operation="infer"), 0, "E-cabinet-04"),
        (POLICY, replace(REQUEST, model=OTHER_MODEL), 0, "E-cabinet-05"),
        (POLICY, replace(REQUEST, model=b""), 0, "E-cabinet-05"),
        (POLICY, replace(REQUEST, where=frozenset({"age"})), 0, "E-cabinet-11"),
        (POLICY, replace(REQUEST, cohort=9), 0, "E-cabinet-06"),
        (POLICY, REQUEST, 20, "E-cabinet-07"),
        (replace(POLICY, output_classes=frozenset({"mean"})), REQUEST, 0, "E-cabinet-08"),
        (POLICY, replace(REQUEST, cohort=10, rows=rows_mask(range(10))), 0, ""),
    ],
)
def test_each_condition_has_its_code(policy, request_, used, expected):
    assert code(policy, request_, used) == expected


def test_the_first_broken_condition_is_the_one_that_is_named():
    """Mending one condition after the other shows the documented order."""
    rows = rows_mask(range(9))
    policy = Policy(output_classes=frozenset(), expires_ms=NOW, queries_per_day=0)
    request = Request(ALBA, "evaluate", MODEL, 9, "", NOW, rows, where=frozenset({"year"}))
    seen = [code(None, request), code(policy, request)]
    for mend in (
        {"expires_ms": 0},
        {"submitters": ANY},
        {"operations": OPERATIONS},
        {"models": ANY},
        {"where": frozenset({"year"})},
        {"min_cohort": 5},
        {"queries_per_day": 1},
        {"output_classes": frozenset({"count"})},
    ):
        policy = replace(policy, **mend)
        seen.append(code(policy, request, 0, (rows_mask(range(10)),)))
    assert seen == list(CODES)
    assert code(policy, request) == ""


def test_statistics_need_no_model():
    assert code(POLICY, replace(REQUEST, operation="statistics", model=b"")) == ""
    assert code(POLICY, replace(REQUEST, operation="statistics", model=OTHER_MODEL)) == "E-cabinet-05"


def test_conditions_may_use_the_columns_that_the_policy_lists_and_no_other():
    policy = replace(POLICY, where=frozenset({"year", "ward"}))
    assert code(policy, replace(REQUEST, where=frozenset({"year"}))) == ""
    ruling = decide(policy, replace(REQUEST, where=frozenset({"year", "age"})), 0)
    assert (ruling.code, ruling.reason) == ("E-cabinet-11", "no condition on 'age' is allowed, only on ward, year")
    assert "on none at all" in decide(POLICY, replace(REQUEST, where=frozenset({"age"})), 0).reason


def test_a_policy_without_columns_is_the_record_that_it_always_was():
    assert "x_where" not in policy_payload(POLICY)
    assert policy_payload(replace(POLICY, where=frozenset({"b", "a"})))["x_where"] == ["a", "b"]


def test_a_policy_without_an_expiry_lasts():
    assert code(replace(POLICY, expires_ms=0), replace(REQUEST, at_ms=2**62)) == ""


def test_row_values_leave_only_when_the_owner_names_predictions():
    policy = replace(POLICY, operations=OPERATIONS)
    request = replace(REQUEST, operation="infer")
    assert code(policy, request) == "E-cabinet-08"
    assert code(replace(policy, output_classes=frozenset({"predictions"})), request) == ""


def test_a_submitter_who_named_three_rows_is_told_that_three_are_too_few():
    ruling = decide(POLICY, replace(REQUEST, cohort=3, rows_named=True), 0)
    assert ruling.reason == "cohort 3 is below its minimum of 10"


def test_the_size_of_a_small_cohort_found_by_a_condition_is_not_told():
    reasons = {decide(POLICY, replace(REQUEST, cohort=cohort), 0).reason for cohort in range(10)}
    assert reasons == {"the cohort is below its minimum of 10"}


def test_reasons_fit_the_ruling_record():
    policy = replace(POLICY, min_cohort=10**7, queries_per_day=10**6)
    policy = replace(policy, where=frozenset(f"{'w' * 60}{number}" for number in range(64)))
    anything = replace(REQUEST, where=frozenset({"c" * 128}))
    small, quota = (0, REQUEST), (10**6, replace(REQUEST, cohort=10**7))
    for used, request in (small, quota, (0, anything), (0, replace(REQUEST, operation="x"))):
        assert len(decide(policy, request, used).reason) <= 256


def test_two_queries_that_differ_in_three_patients_are_not_both_answered():
    everyone, all_but_three = rows_mask(range(190)), rows_mask(range(3, 190))
    assert differs_too_little([everyone], all_but_three, 10)
    request = replace(REQUEST, cohort=187, rows=all_but_three)
    assert code(POLICY, request, 0, (everyone,)) == "E-cabinet-09"
    assert code(POLICY, request, 0, ()) == ""


def test_the_same_rows_may_be_asked_again_by_the_same_conditions_only():
    """An answer to other conditions would tell that nobody stands between the two."""
    rows = rows_mask(range(50))
    request = replace(REQUEST, cohort=50, rows=rows)
    assert code(POLICY, replace(request, repeated=True), 0, (rows,)) == ""
    assert code(POLICY, request, 0, (rows,)) == "E-cabinet-09"


def test_exchanging_a_few_rows_is_a_small_difference_too():
    assert differs_too_little([rows_mask(range(100))], rows_mask(range(4, 104)), 10)
    assert not differs_too_little([rows_mask(range(100))], rows_mask(range(5, 105)), 10)


def test_unknown_rows_are_not_compared():
    assert not differs_too_little([0, rows_mask(range(5))], 0, 10)
    assert not differs_too_little([0], rows_mask(range(5)), 10)


def test_a_cohort_that_is_not_the_number_of_its_rows_is_our_bug():
    with pytest.raises(AssertionError):
        decide(POLICY, replace(REQUEST, rows=0b111), 0)


@pytest.mark.parametrize("row", [-1, LIMITS.cabinets.rows_max, 10**30])
def test_a_row_number_out_of_range_is_the_askers_fault(row):
    with pytest.raises(PeerFault, match="row"):
        rows_mask([1, row])


TOML = f"""
operations = ["evaluate", "statistics"]
submitters = ["{peer_text(ALBA)}"]
models = ["{cid_text(MODEL)}"]
min_cohort = 12
output_classes = ["count", "mean"]
queries_per_day = 20
expires = 2030-01-31T00:00:00.5+01:00
purpose = "tumour research"
where = ["year"]
"""


def test_a_policy_file_is_read():
    assert parse_policy(tomllib.loads(TOML)) == Policy(
        operations=frozenset({"evaluate", "statistics"}),
        submitters=frozenset({ALBA}),
        models=frozenset({MODEL}),
        min_cohort=12,
        queries_per_day=20,
        expires_ms=1_896_044_400_500,
        purpose="tumour research",
        where=frozenset({"year"}),
    )


def test_a_short_policy_file_gets_the_careful_defaults():
    policy = parse_policy(tomllib.loads('operations = ["evaluate"]\nsubmitters = "any"\nmodels = []'))
    assert policy == Policy(operations=frozenset({"evaluate"}), submitters=ANY)
    assert (policy.min_cohort, policy.output_classes) == (10, frozenset({"count", "mean"}))


def test_an_expiry_may_be_given_in_milliseconds():
    assert parse_policy({"operations": [], "submitters": [], "models": [], "expires_ms": 5}).expires_ms == 5


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"min_cohrt": 3}, "min_cohrt"),
        ({"operations": None}, "operations"),
        ({"operations": "evaluate"}, "list"),
        ({"operations": ["train"]}, "train"),
        ({"operations": ["infer"]}, "predictions"),
        ({"output_classes": ["histogram"]}, "histogram"),
        ({"submitters": ["12D3KooWnobody"]}, "submitters"),
        ({"submitters": [ALBA]}, "list"),
        ({"submitters": "all"}, "list"),
        ({"submitters": [peer_text(ALBA)] * 513}, "512"),
        ({"models": [cid_text(blob_cid(b"file"))]}, "models"),
        ({"models": ["*"]}, "models"),
        ({"min_cohort": 0}, "min_cohort"),
        ({"min_cohort": True}, "min_cohort"),
        ({"min_cohort": 9.5}, "min_cohort"),
        ({"queries_per_day": -1}, "queries_per_day"),
        ({"expires": "tomorrow"}, "expires"),
        ({"expires_ms": 5}, "expires"),
        ({"purpose": "x" * 257}, "256"),
        ({"purpose": 7}, "purpose"),
        ({"where": "age"}, "list"),
        ({"where": [""]}, "where"),
        ({"where": ["a" * 65]}, "64"),
        ({"where": [str(number) for number in range(65)]}, "64"),
    ],
)
def test_a_mistake_in_a_policy_file_is_told_with_its_mend(change, told):
    with pytest.raises(ConfigError) as caught:
        parse_policy(tomllib.loads(TOML) | change)
    complaint = caught.value.complaint
    assert complaint.code == "E-cabinet-10"
    assert told in complaint.what + complaint.hint
    assert complaint.hint


@pytest.mark.parametrize("key", ["operations", "submitters", "models"])
def test_what_is_allowed_has_to_be_written_down(key):
    settings = tomllib.loads(TOML)
    del settings[key]
    with pytest.raises(ConfigError, match="missing"):
        parse_policy(settings)


@pytest.mark.parametrize("expires", ["2030-01-31T00:00:00", "2030-01-31", "1969-01-31T00:00:00Z"])
def test_an_expiry_without_an_offset_or_before_1970_is_refused(expires):
    with pytest.raises(ConfigError, match="expires"):
        parse_policy(tomllib.loads(f"operations = []\nsubmitters = []\nmodels = []\nexpires = {expires}"))


def test_every_operation_has_a_class_of_output():
    assert OUTPUT_CLASS_OF.keys() == OPERATIONS
