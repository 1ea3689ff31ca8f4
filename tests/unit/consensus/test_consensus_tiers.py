"""Tiers: which exist, what they cost, what they do not catch."""

import pytest

from dimnode.consensus.tiers import EXISTING_TIERS, TIERS, Quorum, check_quorum, check_tier, collusion_ppm, quote
from dimnode.errors import Refused


@pytest.mark.parametrize("tier", sorted(EXISTING_TIERS))
def test_a_tier_that_exists_can_be_had(tier):
    assert check_tier(tier) == tier
    assert tier in TIERS


@pytest.mark.parametrize("tier", sorted(set(TIERS) - EXISTING_TIERS))
def test_a_planned_tier_is_refused_by_name_with_a_hint(tier):
    with pytest.raises(Refused) as caught:
        check_tier(tier)
    complaint = caught.value.complaint
    assert complaint.code == "E-tier-01"
    assert tier in complaint.what
    assert "planned" in complaint.cause
    assert "signed, quorum" in complaint.hint


def test_an_unknown_tier_is_refused_with_the_names_of_those_that_are():
    with pytest.raises(Refused) as caught:
        quote("blockchain")
    assert caught.value.complaint.cause == "the tiers are signed, quorum"


def test_a_quorum_is_a_majority_of_two_to_seven():
    possible = {(n, k) for n in range(10) for k in range(10) if 1 < k <= n <= 7 and 2 * k > n}
    for n in range(-1, 10):
        for k in range(-1, 10):
            if (n, k) in possible:
                assert check_quorum(n, k) == Quorum(n, k)
            else:
                with pytest.raises(Refused) as caught:
                    check_quorum(n, k)
                assert caught.value.complaint.code == "E-tier-02"
                assert caught.value.complaint.hint


def test_a_signed_answer_costs_one_run_and_promises_no_more_than_authorship():
    quoted = quote("signed")
    assert quoted.cost_permille == 1000
    assert "not caught" in quoted.residual


def test_a_quorum_costs_its_replicas_and_tells_the_risk_of_collusion():
    quoted = quote("quorum", Quorum(3, 2))
    assert quoted.cost_permille == 3000
    assert "2 of 3" in quoted.residual
    assert "10.4 %" in quoted.residual


def test_collusion_follows_the_binomial_tail():
    assert collusion_ppm(3, 2, 200) == 104_000  # p²(3 - 2p)
    assert collusion_ppm(3, 2, 400) == 352_000
    assert collusion_ppm(3, 2, 0) == 0
    assert collusion_ppm(7, 4, 1000) == 1_000_000
    assert collusion_ppm(5, 3, 200) < collusion_ppm(3, 2, 200)
