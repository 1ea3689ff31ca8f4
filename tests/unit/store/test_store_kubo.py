"""The adapter to a Kubo daemon, against a fake one that is honest, then not."""

import socket
from dataclasses import replace
from io import BytesIO

import pytest
import trio

from dimnode.errors import Refused
from dimnode.limits import KuboLimits
from dimnode.records.ids import blob_cid, cid_text
from dimnode.records.unixfs import LEAF_BYTES, tree_of
from dimnode.store.kubo import Daemon, open_kubo
from tests.fake_kubo import FakeKubo

LIMITS = KuboLimits()
HURRIED = replace(LIMITS, stall_seconds_max=0.1, call_seconds_max=0.2, send_seconds_min=0.2)
SMALL = b"a model, a small one"
LARGE = b"".join(bytes([number]) * LEAF_BYTES for number in range(3)) + b"end"


@pytest.fixture
def daemon():
    with FakeKubo() as found:
        yield found


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(LARGE)
    return tree_of(BytesIO(LARGE).read), path


def ask(api, use, limits=LIMITS, **more):
    """Run one conversation with the daemon."""

    async def main():
        async with open_kubo(api, limits, **more) as kubo:
            return await use(kubo)

    return trio.run(main)


def refused(api, use, limits=LIMITS):
    with pytest.raises(Refused) as caught:
        ask(api, use, limits)
    return caught.value.complaint


def test_the_daemon_says_who_it_is(daemon):
    assert ask(daemon.api, lambda kubo: kubo.daemon()) == Daemon("js-ipfs", "0.18.1")
    daemon.version = {"Version": "0.37.0", "Golang": "go1.24"}
    assert ask(daemon.api + "/http", lambda kubo: kubo.daemon()) == Daemon("kubo", "0.37.0")


def test_an_absent_daemon_is_said_to_be_absent_whichever_way_it_is_called():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it, nobody answers
        api = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
        for use in (lambda kubo: kubo.daemon(), lambda kubo: kubo.pinned(blob_cid(SMALL))):
            said = refused(api, use)
            assert (said.code, said.cause) == ("E-kubo-03", "nothing listens there")


@pytest.mark.parametrize(
    "version", [{"Version": "0.12.9", "Golang": "go1"}, {"Version": "soon"}, {}, {"Version": 3}], ids=str
)
def test_a_daemon_of_an_unknown_version_is_refused(daemon, version):
    daemon.version = version
    assert refused(daemon.api, lambda kubo: kubo.daemon()).code == "E-kubo-04"


@pytest.mark.parametrize("fault", ["html", "broken-json"])
def test_what_is_no_daemon_at_all_is_refused(daemon, fault):
    daemon.fault = fault
    assert refused(daemon.api, lambda kubo: kubo.daemon()).code == "E-kubo-04"
    assert refused(daemon.api, lambda kubo: kubo.key("dim")).code == "E-kubo-05"


def test_a_file_is_added_and_pinned_under_our_root(daemon, large):
    tree, path = large
    sent = []
    ask(daemon.api, lambda kubo: kubo.add(tree, path, sent.append))
    root = cid_text(tree.root)
    assert daemon.whole(root) == LARGE
    assert daemon.pins == {root}
    assert sent[-1] == len(LARGE) and sent == sorted(sent)
    assert daemon.asked == ["add"]


def test_a_file_with_more_leaves_than_importers_agree_on_goes_there_block_by_block(daemon, large):
    tree, path = large
    ask(daemon.api, lambda kubo: kubo.add(tree, path), replace(LIMITS, add_leaves_max=3))
    assert daemon.whole(cid_text(tree.root)) == LARGE
    assert daemon.pins == {cid_text(tree.root)}
    assert daemon.asked == ["dag/import", "pin/add"]


def test_bytes_are_added_and_read_back_as_they_were(daemon):
    async def use(kubo):
        root = await kubo.add_bytes(SMALL)
        return root, await kubo.cat(root, len(SMALL)), await kubo.block(root), await kubo.has(root)

    assert ask(daemon.api, use) == (blob_cid(SMALL), SMALL, SMALL, True)


def test_another_tree_of_the_same_bytes_is_refused_and_let_go_again(daemon, large):
    daemon.fault = "tree"
    tree, path = large
    said = refused(daemon.api, lambda kubo: kubo.add(tree, path))
    assert said.code == "E-kubo-06" and cid_text(tree.root) in said.cause
    assert not daemon.pins
    assert daemon.asked == ["add", "pin/rm"]


def test_a_file_that_changed_is_sent_to_nobody(daemon, large):
    tree, path = large
    path.write_bytes(LARGE[:-1] + b"!")
    assert refused(daemon.api, lambda kubo: kubo.add(tree, path)).code == "E-kubo-12"
    limits = replace(LIMITS, add_leaves_max=1)
    assert refused(daemon.api, lambda kubo: kubo.add(tree, path), limits).code == "E-kubo-12"
    path.unlink()
    assert refused(daemon.api, lambda kubo: kubo.add(tree, path)).code == "E-kubo-12"
    assert not daemon.pins


@pytest.mark.parametrize(("fault", "code"), [("lie", "E-kubo-07"), ("cut", "E-kubo-05")])
def test_wrong_or_cut_bytes_never_arrive(daemon, fault, code):
    root = blob_cid(SMALL)
    daemon.put(SMALL)
    daemon.fault = fault
    assert refused(daemon.api, lambda kubo: kubo.block(root)).code == code
    assert refused(daemon.api, lambda kubo: kubo.cat(root, len(SMALL))).code == code


def test_nothing_is_unpacked(daemon):
    root = blob_cid(SMALL)
    daemon.put(SMALL)
    daemon.fault = "packed"
    assert ask(daemon.api, lambda kubo: kubo.block(root)) == SMALL  # taken as it came, and it is what it has to be
    assert "packed" in refused(daemon.api, lambda kubo: kubo.cat(root, len(SMALL))).cause


@pytest.mark.parametrize("fault", ["cut:add", "cut:dag/import"])
def test_a_daemon_that_dies_while_it_answers_has_not_taken_anything(daemon, large, fault):
    tree, path = large
    daemon.fault = fault
    limits = replace(LIMITS, add_leaves_max=1 if "import" in fault else 174)
    said = refused(daemon.api, lambda kubo: kubo.add(tree, path), limits)
    assert (said.code, said.cause) == ("E-kubo-05", "it closed the connection")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["add", "cat", "block/get", "name/publish", "pin/ls", "dag/import"])
def test_a_slow_daemon_is_waited_for_until_the_deadline_and_not_longer(daemon, large, what):
    tree, path = large
    daemon.put(SMALL)
    daemon.fault = f"slow:{what}"
    limits = replace(HURRIED, publish_seconds_max=0.2, add_leaves_max=1 if what == "dag/import" else 174)
    # enough for the four leaves, not for the answer
    limits = replace(limits, send_bytes_per_second_min=10 * 1024 * 1024) if what in ("add", "dag/import") else limits
    uses = {
        "add": lambda kubo: kubo.add(tree, path),
        "dag/import": lambda kubo: kubo.add(tree, path),
        "cat": lambda kubo: kubo.cat(blob_cid(SMALL), len(SMALL)),
        "block/get": lambda kubo: kubo.block(blob_cid(SMALL)),
        "name/publish": lambda kubo: kubo.publish("self", blob_cid(SMALL), 60),
        "pin/ls": lambda kubo: kubo.pinned(blob_cid(SMALL)),
    }
    assert refused(daemon.api, uses[what], limits).code == "E-kubo-05"


def test_an_endless_answer_is_cut_at_its_bound(daemon):
    daemon.fault = "endless"
    root = blob_cid(SMALL)
    assert "more than" in refused(daemon.api, lambda kubo: kubo.block(root)).cause
    assert "too long" in refused(daemon.api, lambda kubo: kubo.key("dim")).cause


def test_a_redirect_is_not_followed(daemon):
    daemon.fault = "redirect"
    root = blob_cid(SMALL)
    assert refused(daemon.api, lambda kubo: kubo.pinned(root)).code == "E-kubo-05"
    assert refused(daemon.api, lambda kubo: kubo.block(root)).code == "E-kubo-08"
    assert daemon.asked == ["pin/ls", "block/get"]


def test_what_the_environment_says_of_proxies_and_credentials_does_not_count(daemon, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("PY_IPFS_HTTP_CLIENT_DEFAULT_USERNAME", "me")
    root = blob_cid(SMALL)
    daemon.put(SMALL)
    assert ask(daemon.api, lambda kubo: kubo.cat(root, len(SMALL))) == SMALL
    assert ask(daemon.api, lambda kubo: kubo.block(root)) == SMALL
    assert all("Authorization" not in headers for headers in daemon.headers)


def test_the_daemons_own_no_is_shown_in_plain_letters(daemon):
    daemon.fault = "refuse"
    said = refused(daemon.api, lambda kubo: kubo.pin(blob_cid(SMALL)))
    assert (said.code, said.cause) == ("E-kubo-08", "the datastore is  [31mfull")


def test_what_is_not_there_is_told_from_what_went_wrong(daemon):
    root = blob_cid(SMALL)
    assert refused(daemon.api, lambda kubo: kubo.block(root)).code == "E-kubo-09"
    assert refused(daemon.api, lambda kubo: kubo.cat(root, 9)).code == "E-kubo-09"

    async def use(kubo):
        return await kubo.has(root), await kubo.pinned(root), await kubo.unpin(root)

    assert ask(daemon.api, use) == (False, False, False)


def test_pins_come_and_go(daemon):
    root = blob_cid(SMALL)
    daemon.put(SMALL)

    async def use(kubo):
        await kubo.pin(root)
        return await kubo.pinned(root), await kubo.unpin(root), await kubo.pinned(root)

    assert ask(daemon.api, use) == (True, True, False)


@pytest.mark.parametrize(
    "version", [{"Version": "0.18.1", "ipfs-core": "x"}, {"Version": "0.37.0", "Golang": "x"}], ids=str
)
def test_a_small_blob_is_put_as_a_block_in_the_words_of_either_daemon_and_its_name_is_compared(daemon, version):
    daemon.version = version

    async def use(kubo):
        await kubo.add_bytes(SMALL)

    ask(daemon.api, use)
    assert set(daemon.blocks) == daemon.pins == {cid_text(blob_cid(SMALL))}
    daemon.fault = "misname"
    assert refused(daemon.api, use).code == "E-kubo-06"


def test_a_key_is_made_once_and_its_name_points_where_it_was_told(daemon):
    root = blob_cid(SMALL)

    async def use(kubo):
        return await kubo.key("dim-x"), await kubo.key("dim-x"), await kubo.publish("dim-x", root, 3600)

    first, second, name = ask(daemon.api, use)
    assert first == second == name
    assert daemon.asked.count("key/gen") == 1
    assert daemon.names == {name: f"/ipfs/{cid_text(root)}"}
    daemon.fault = "misname:name/publish"
    assert refused(daemon.api, use).code == "E-kubo-08"
