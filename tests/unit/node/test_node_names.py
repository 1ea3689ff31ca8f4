"""How people name peers: by whole ids, enough letters of one, or a claimed name; and what takes a whole id alone."""

from types import SimpleNamespace
from typing import Any

import pytest

from dimnode.errors import Refused
from dimnode.node.backstage import Backstage
from dimnode.node.job_answers import JobAnswers
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import named_by, peer_text

ME, ALBA, BRIO, TWIN = (SigningKey.from_seed(bytes([n]) * 32).peer for n in range(1, 5))


@pytest.fixture
def backstage() -> Backstage:
    """Only what names need: this node's id and name, and the peers that it heard."""
    members = [SimpleNamespace(peer=ALBA, name="alba"), SimpleNamespace(peer=BRIO, name="twin")]
    members.append(SimpleNamespace(peer=TWIN, name="twin"))
    swarm = SimpleNamespace(members=SimpleNamespace(alive=lambda _at: members))
    found = Backstage.__new__(Backstage)
    node: Any = SimpleNamespace(me=ME, config=SimpleNamespace(name="mine"), swarm=swarm)
    found._node, found.me = node, ME
    return found


def refused(call, *arguments) -> tuple[str, str]:
    with pytest.raises(Refused) as caught:
        call(*arguments)
    return caught.value.complaint.code, caught.value.complaint.cause


def test_a_peer_is_named_by_its_id_by_twelve_letters_of_it_or_by_a_name_of_its_own(backstage) -> None:
    for name in (peer_text(ALBA), peer_text(ALBA)[-12:], peer_text(ALBA)[-20:], "alba"):
        assert backstage.find_peer(name) == ALBA
    assert backstage.find_peer("mine") == backstage.find_peer("self") == ME


@pytest.mark.parametrize("letters", [6, 8, 11])
def test_fewer_letters_are_refused_with_the_whole_id_that_ends_so(backstage, letters) -> None:
    assert not named_by(ALBA, peer_text(ALBA)[-letters:])
    code, cause = refused(backstage.find_peer, peer_text(ALBA)[-letters:])
    assert code == "E-peers-01" and peer_text(ALBA) in cause


def test_plans_and_records_of_jobs_show_peers_by_letters_that_commands_take(backstage) -> None:
    claims = {"twin": 2}
    members = SimpleNamespace(get={TWIN: SimpleNamespace(name="twin")}.get, claims=claims.get)
    node: Any = SimpleNamespace(me=ME, config=SimpleNamespace(name="mine"), swarm=SimpleNamespace(members=members))
    jobs = JobAnswers(node, backstage)
    for peer, shown in ((BRIO, ""), (TWIN, "twin …")):
        said = jobs.label(peer)
        assert said == shown + peer_text(peer)[-12:]
        assert named_by(peer, said.removeprefix("twin …"))


@pytest.mark.parametrize("name", ["alba", "twin", "nobody", "self", "", "ALBA'S END"])
def test_rights_are_given_to_a_whole_id_and_to_no_name_however_many_claim_it(backstage, name) -> None:
    given = peer_text(ALBA)[-12:] if name == "ALBA'S END" else name
    code, cause = refused(backstage.whole_peer, given)
    assert code == "E-peers-09"
    if name in ("alba", "ALBA'S END"):
        assert peer_text(ALBA) in cause
    if name == "twin":
        assert peer_text(BRIO) in cause and peer_text(TWIN) in cause
    assert backstage.whole_peer(peer_text(BRIO)) == BRIO
