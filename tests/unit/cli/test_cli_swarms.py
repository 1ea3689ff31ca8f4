"""`dim swarm` on directories without a node: what it prints, what it refuses, what it leaves on the disk."""

import json

import pytest
from fake_node import FakeNode, refusal

from dimnode.cli.durations import span_ms
from dimnode.records.ids import named_by, peer_bytes
from dimnode.store.home import locked
from dimnode.store.swarm_state import load_state, state_path

ADDRESS = "/ip4/192.0.2.7/tcp/4710/p2p/12D3KooWHh3NskBS545oqF18PwzyvqSBzVtxggL3WMVRQALiAWnY"


@pytest.fixture
def swarm(dim, tmp_path):
    """A founder's home, another one beside it, and an invitation."""
    founder, guest = tmp_path / "founder", tmp_path / "guest"
    assert dim("swarm", "new", "clinic", "--home", founder).code == 0
    invited = dim("swarm", "invite", "--home", founder, "--address", ADDRESS, "--uses", 2, "--expires", "2d")
    assert invited.code == 0, invited.err
    return founder, guest, invited


def code_of(said):
    return said.err.split(":")[0].removeprefix("error ")


def test_an_invitation_stands_alone_on_stdout_and_its_meaning_beside_it(swarm):
    _, _, invited = swarm
    assert len(invited.out.split()) == 1
    assert invited.out.startswith("dim1:")
    assert "2 machines" in invited.err
    assert "like a password" in invited.err


def test_tables_show_peers_by_letters_that_commands_take(dim, swarm, tmp_path):
    founder, _, _ = swarm
    me = json.loads(dim("swarm", "show", "--home", founder, "--json").out)["me"]
    row = {"name": "", "peer": me, "context": "model", "mean": 0.5, "events": 1, "barred_until_ms": 0}
    (tmp_path / "node").mkdir()
    with FakeNode(tmp_path / "node", rep__ls={"result": {"standing": [row]}}):
        standing = dim("rep", "ls", "--home", tmp_path / "node")
        assert standing.code == 0, standing
    for said in (dim("swarm", "members", "--home", founder).out, standing.out):
        letters = next(word for word in said.split() if word.startswith("…") and me.endswith(word[1:]))
        assert named_by(peer_bytes(me), letters[1:])


def test_looking_at_a_swarm_makes_neither_a_home_nor_a_key(dim, tmp_path):
    home = tmp_path / "nobody"
    shown = json.loads(dim("swarm", "show", "--home", home, "--json").out)
    assert (shown["swarm"], shown["me"], shown["running"]) == ("open", None, False)
    assert "dim init" in dim("swarm", "show", "--home", home).out
    for words in (["members"], ["invite"], ["remove", "somebody"]):
        assert code_of(dim("swarm", *words, "--home", home)) == "E-swarm-20"
    assert not home.exists()
    home.mkdir()
    assert dim("swarm", "show", "--home", home).code == 0
    assert not list(home.iterdir())


def test_a_joined_home_knows_its_swarm_and_what_comes_next(dim, swarm):
    founder, guest, invited = swarm
    said = dim("swarm", "join", invited.out.strip(), "--home", guest)
    assert (said.code, said.err.strip()) == (0, f"next: dim up --home {guest}")
    assert ADDRESS in said.out
    assert state_path(guest).stat().st_mode & 0o777 == 0o600
    shown = json.loads(dim("swarm", "show", "--home", guest, "--json").out)
    assert (shown["swarm"], shown["standing"], shown["running"]) == ("clinic", "member", False)
    rows = json.loads(dim("swarm", "members", "--home", guest, "--json").out)["members"]
    assert [(row["role"], row["me"]) for row in rows] == [("founder", False), ("member", True)]
    assert "clinic" in dim("swarm", "show", "--home", founder).out
    assert "this node" in dim("swarm", "members", "--home", founder).out


def test_a_wrapped_invitation_is_read_from_many_words(dim, swarm):
    _, guest, invited = swarm
    text = invited.out.strip()
    assert dim("swarm", "join", text[:200], text[200:], "--home", guest).code == 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda text: "hello", "E-swarm-01"),
        (lambda text: text[:300], "E-swarm-02"),
        (lambda text: text[:300] + ("a" if text[300] != "a" else "b") + text[301:], "E-swarm-03"),
    ],
)
def test_a_bad_invitation_leaves_no_trace(dim, swarm, change, code):
    _, guest, invited = swarm
    said = dim("swarm", "join", change(invited.out.strip()), "--home", guest)
    assert (said.code, code_of(said)) == (4, code)
    assert not guest.exists()


@pytest.mark.slow
def test_every_no_has_its_code(dim, swarm, tmp_path):
    founder, guest, invited = swarm
    dim("swarm", "join", invited.out.strip(), "--home", guest)
    dim("swarm", "new", "other", "--home", tmp_path / "other")
    for code, words in (
        ("E-swarm-07", ("join", invited.out.strip(), "--home", guest)),
        ("E-swarm-08", ("join", invited.out.strip(), "--home", tmp_path / "other")),
        ("E-swarm-08", ("new", "third", "--home", guest)),
        ("E-swarm-20", ("leave", "--home", tmp_path / "fresh")),
        ("E-swarm-20", ("members", "--home", tmp_path / "fresh")),
        ("E-swarm-21", ("invite", "--address", ADDRESS, "--home", guest)),
        ("E-swarm-23", ("invite", "--home", founder)),
        ("E-p2p-05", ("invite", "--address", "nonsense", "--home", founder)),
        ("E-swarm-26", ("remove", "nobody", "--home", founder)),
        ("E-swarm-27", ("invite", "--expires", "soon", "--home", founder)),
        ("E-swarm-27", ("new", "x", "--admin", "nobody", "--home", tmp_path / "fresh")),
    ):
        said = dim("swarm", *words)
        assert code_of(said) == code, (words, said)
        assert said.code in (2, 4)
    with locked(founder):
        said = dim("swarm", "leave", "--home", founder)
        assert code_of(said) == "E-swarm-22" and "hint: dim stop" in said.err
        said = dim("swarm", "members", "--home", founder)  # its socket is not there yet
        assert code_of(said) == "E-swarm-22" and "starting or stopping" in said.err and "dim stop" not in said.err


def test_what_an_offline_admin_removes_is_written_down(dim, swarm):
    founder, guest, invited = swarm
    dim("swarm", "join", invited.out.strip(), "--home", guest)
    invite = json.loads(dim("swarm", "show", "--home", founder, "--json").out)["invites"][0]["invite"]
    said = dim("swarm", "remove", invite[-8:], "--home", founder, "--reason", "enough")
    assert said.out == f"withdrawn invite {invite}\n"
    shown = dim("swarm", "show", "--home", founder)
    assert "withdrawn" in shown.out
    assert "(enough)" in shown.out


def test_leaving_sets_everything_aside_even_when_it_is_damaged(dim, swarm):
    founder, _, _ = swarm
    state_path(founder).write_bytes(b"nonsense")
    said = dim("swarm", "leave", "--home", founder, "--json")
    assert said.code == 0
    assert json.loads(said.out)["set_aside"].endswith("left/swarm-1")
    assert load_state(founder) is None


def test_a_running_node_is_asked_and_its_no_is_passed_on(dim, tmp_path):
    answers = {"swarm__invite": refusal("E-swarm-21", "no admin"), "swarm__remove": refusal("E-swarm-26", "nobody")}
    with FakeNode(tmp_path, **answers) as node:
        assert code_of(dim("swarm", "invite", "--uses", 3, "--member-expires", "1w")) == "E-swarm-21"
        assert code_of(dim("swarm", "remove", "berg")) == "E-swarm-26"
        asked = node.asked("swarm.invite")[0]
        assert (asked["uses"], asked["member_ms"], asked["expires_ms"]) == (3, 7 * 86_400_000, 7 * 86_400_000)


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "-1d", "1.5d", "7 d", "9999999d"])
def test_a_duration_is_a_number_and_a_unit(text):
    assert span_ms(text) is None
    assert [span_ms(good) for good in ("90s", "2w", " 1h ")] == [90_000, 1_209_600_000, 3_600_000]


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        (("swarm", "invite"), "E-swarm-27"),
        (("keys", "new"), "E-keys-02"),
        (("models", "grant", "scribe", "PEER"), "E-models-07"),
    ],
)
def test_an_end_that_is_no_duration_is_told_by_its_commands_code(dim, tmp_path, typed, code):
    with FakeNode(tmp_path) as node:
        assert code_of(dim(*typed, "--expires", "soon")) == code
        assert not node.requests
