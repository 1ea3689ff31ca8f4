"""Whatever policy and request are: only what meets every condition is allowed, and a refusal tells no small count."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimnode.cabinets.policy import (
    ANY,
    CODES,
    OPERATIONS,
    OUTPUT_CLASS_OF,
    Policy,
    Request,
    decide,
    differs_too_little,
    policy_payload,
    rows_mask,
)
from dimnode.records.ids import peer_of_key, record_id
from dimnode.records.kinds import OPEN_SWARM_ID, compose

pytestmark = pytest.mark.slow
thorough = settings(max_examples=200, deadline=None)

ALBA, EZRA = peer_of_key(b"a" * 32), peer_of_key(b"e" * 32)
MODEL, OTHER_MODEL = record_id(b"model"), record_id(b"other")
NOW = 1_800_000_000_000

policies = st.builds(
    Policy,
    operations=st.frozensets(st.sampled_from(sorted(OPERATIONS))),
    submitters=st.just(ANY) | st.frozensets(st.sampled_from([ALBA, EZRA])),
    models=st.just(ANY) | st.frozensets(st.sampled_from([MODEL, OTHER_MODEL])),
    output_classes=st.frozensets(st.sampled_from(sorted(OUTPUT_CLASS_OF.values()))),
    min_cohort=st.integers(1, 50),
    queries_per_day=st.integers(0, 50),
    expires_ms=st.integers(0, 2 * NOW),
    purpose=st.text(max_size=20),
    where=st.frozensets(st.sampled_from(["year", "ward"])),
)
requests = st.builds(
    Request,
    submitter=st.sampled_from([ALBA, EZRA]),
    operation=st.sampled_from([*sorted(OPERATIONS), "train", ""]),
    model=st.sampled_from([MODEL, OTHER_MODEL, b""]),
    cohort=st.integers(0, 100),
    purpose=st.text(max_size=20),
    at_ms=st.integers(0, 2 * NOW),
    rows_named=st.booleans(),
    where=st.frozensets(st.sampled_from(["year", "ward", "age"])),
)


@thorough
@given(policies)
def test_every_policy_makes_a_valid_record(policy):
    common = {"net": OPEN_SWARM_ID, "by": ALBA, "at_ms": NOW}
    compose("policy", common, {"cabinet": "wdbc"} | policy_payload(policy))


@thorough
@given(policies, requests, st.integers(0, 60))
def test_only_what_meets_every_condition_is_allowed(policy, request, used_today):
    modelless = request.operation == "statistics" and request.model == b""
    expected = (
        (policy.expires_ms == 0 or request.at_ms < policy.expires_ms)
        and (policy.submitters == ANY or request.submitter in policy.submitters)
        and request.operation in policy.operations
        and (modelless or policy.models == ANY or request.model in policy.models)
        and request.where <= policy.where
        and request.cohort >= policy.min_cohort
        and used_today < policy.queries_per_day
        and OUTPUT_CLASS_OF[request.operation] in policy.output_classes
    )
    ruling = decide(policy, request, used_today)
    assert ruling.allowed == expected
    assert ruling.code in (("",) if expected else CODES)


@thorough
@given(policies, requests, st.integers(0, 60))
def test_a_stricter_policy_never_allows_more(policy, request, used_today):
    stricter = replace(policy, min_cohort=policy.min_cohort + 1, submitters=frozenset({ALBA}), queries_per_day=5)
    if (policy.submitters != ANY and ALBA not in policy.submitters) or policy.queries_per_day < 5:
        return
    if decide(stricter, request, used_today).allowed:
        assert decide(policy, request, used_today).allowed


@thorough
@given(policies, requests, st.integers(0, 60), st.integers(0, 100))
def test_a_refusal_is_the_same_for_every_cohort_that_is_too_small(policy, request, used_today, other):
    request = replace(request, rows_named=False)
    if max(request.cohort, other) < policy.min_cohort:
        assert decide(policy, request, used_today) == decide(policy, replace(request, cohort=other), used_today)


@thorough
@given(st.frozensets(st.integers(0, 200)), st.frozensets(st.integers(0, 200)), st.integers(1, 20))
def test_masks_differ_as_the_sets_do(one, other, min_cohort):
    expected = bool(one) and bool(other) and min_cohort > 1 and len(one ^ other) < min_cohort
    assert differs_too_little([rows_mask(one)], rows_mask(other), min_cohort) == expected
    assert differs_too_little([rows_mask(other)], rows_mask(one), min_cohort) == expected
    assert rows_mask(one) == sum(1 << row for row in one)
