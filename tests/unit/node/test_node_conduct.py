"""What the operator is told about peers that misbehave."""

from collections import Counter

from dimnode.node.conduct_answers import conduct_line, conduct_map
from dimnode.node.doctor import conduct
from dimnode.p2p.conduct import Ban
from dimnode.p2p.host.gate import ConductReport
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import peer_text, short

PEER = SigningKey.from_seed(b"p" * 32).peer
REPORT = ConductReport(
    offences=dict(Counter({"window": 2, "malformed": 5})),
    refusals={"E-p2p-30": 1},
    gossip={"t": {"accepted": 3}},
    bans=1,
    banned=(Ban(PEER, 41.26),),
    half_open=4,
)


def test_offences_are_reported_by_code_and_name_and_bans_by_peer() -> None:
    found = conduct_map(REPORT)
    assert found["offences"] == {"E-p2p-31 malformed": 5, "E-p2p-41 window": 2}
    assert found["refused"] == [{"peer": peer_text(PEER), "code": "E-p2p-30", "seconds_left": 41.3}]
    assert (found["bans"], found["half_open_sockets"], found["gossip"]["t"]["accepted"]) == (1, 4, 3)


def test_the_doctor_says_it_in_one_line() -> None:
    assert conduct_line(REPORT) == f"offences: malformed 5, window 2; refused now: …{short(PEER)} for 41 s"
    assert conduct_line(ConductReport({}, {}, {}, 0, (), 0)) == "no peer has misbehaved"


def test_the_doctor_is_worried_only_when_this_node_refuses_everybody_that_it_knows() -> None:
    assert not conduct(REPORT, [])["ok"]
    assert not conduct(REPORT, [PEER])["ok"]
    assert conduct(REPORT, [PEER, SigningKey.from_seed(b"q" * 32).peer])["ok"]
    assert conduct(ConductReport({}, {}, {}, 0, (), 0), [])["ok"]
