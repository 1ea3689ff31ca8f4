"""Real nodes that die, stop, flap and come back: who notices, how soon, and what becomes of jobs and views."""

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dimnode.errors import DimError
from dimnode.p2p.membership import MISSED_MAX, heartbeat_seconds
from dimnode.records.ids import peer_bytes
from tests.e2e.books import Books, check_receipts
from tests.e2e.harness import JOB_SECONDS, LINK_SECONDS, NOISE, Nodes, patient, real_nodes, triage, until

pytestmark = pytest.mark.slow
KILL_SECONDS = 3.0
STOP_SECONDS = 6.0
FLAP_SECONDS = float(os.environ.get("DIM_TEST_FLAP_SECONDS", "4"))
"""Ten and more is the promise; a test run takes less."""


@pytest.fixture(scope="module")
def trio_of_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with real_nodes(tmp_path_factory.mktemp("liveness"), {"alba": False, "brio": True, "cara": True}) as nodes:
        nodes.offer("brio", "cara")
        yield nodes


@pytest.fixture
def nodes(trio_of_nodes: Nodes) -> Nodes:
    trio_of_nodes.heal()
    return trio_of_nodes


def row_of(nodes: Nodes, seer: str, seen: str) -> dict[str, Any]:
    """What `dim peers` of one node says of another; {} when it says nothing."""
    return next((row for row in nodes[seer].client.peers() if row["peer"] == nodes[seen].peer), {})


def noticed(nodes: Nodes, gone: str, seconds: float) -> float:
    """Seconds until the two others have no link to it any more; fails when those were not enough."""
    began = time.monotonic()
    others = [name for name in nodes.by_name if name != gone]
    until(lambda: not any(row_of(nodes, name, gone).get("linked") for name in others), seconds, f"{gone} is missed")
    return time.monotonic() - began


def wait_turned_away(nodes: Nodes, who: str, by: str) -> None:
    """Until its dials are refused: as long as it has not seen that its connection ended, it dials nobody."""

    def code() -> str:
        try:
            nodes[who].client.connect(nodes[by].addresses[0])
        except DimError as no:
            return no.complaint.code
        return ""

    assert until(code, LINK_SECONDS, f"{who} is turned away by {by}") == "E-p2p-01"


def test_a_stopped_node_is_missed_within_six_seconds_and_takes_up_work_when_it_goes_on(nodes: Nodes) -> None:
    alba, cara, books = nodes["alba"], nodes["cara"], Books(nodes["alba"].home)
    began = books.last()
    pendings = []
    cara.pause()
    try:
        pendings = [alba.client.submit(triage(), [patient(number)], receipt=False) for number in range(12)]
        seconds = noticed(nodes, "cara", STOP_SECONDS)
        ended = [pending.wait(JOB_SECONDS) for pending in pendings]
    finally:
        cara.resume()
    back = time.monotonic()
    nodes.wait_linked()
    print(f"missed after {seconds:.2f} s, linked again {time.monotonic() - back:.2f} s after it went on")
    assert {one.status for one in ended} == {"ok"}
    assert alba.client.run(triage("cara"), [patient(99)], timeout_seconds=JOB_SECONDS).status == "ok"
    nodes.wait_idle()
    books.check_once()
    moved = {lease.payload["job"] for lease in books.records("lease", began) if lease.payload["epoch"] > 1}
    assert {books.executor_of(job)[0] for job in moved} <= {peer_bytes(nodes["brio"].peer)}
    check_receipts(alba.client, [one.job for one in ended])


def test_a_flapping_node_does_not_double_the_work(nodes: Nodes) -> None:
    alba, cara, books = nodes["alba"], nodes["cara"], Books(nodes["alba"].home)
    starts = {name: Books(nodes[name].home).last() for name in nodes.by_name}
    jobs, stop = list[bytes](), threading.Event()

    def work() -> None:
        with type(alba.client)(alba.home) as client:
            number = 0
            while not stop.is_set():
                batch = [(triage(label="flap"), [patient(number + place)]) for place in range(8)]
                number += len(batch)
                for ended in client.run_many(batch):
                    assert ended.status == "ok", ended
                    jobs.append(ended.job)

    worker = threading.Thread(target=work)
    worker.start()
    deadline = time.monotonic() + FLAP_SECONDS
    stopped = threading.Event()
    while time.monotonic() < deadline:
        cara.pause()
        stopped.wait(1.0)  # the flapping is the subject
        cara.resume()
        stopped.wait(1.0)
    stop.set()
    worker.join()
    nodes.wait_linked()
    nodes.wait_idle()
    books.check_once()
    runs = {name: len(Books(nodes[name].home).records("answer", starts[name])) for name in ("brio", "cara")}
    leases = len(books.records("lease", starts["alba"]))
    print(f"{len(jobs)} jobs, {leases} leases, runs {runs}")
    assert len(set(jobs)) == len(jobs) > 0
    assert sum(runs.values()) <= leases, "nothing ran without a lease of its own"
    # A flap of a second breaks no link. Were every link lost at every flap, each could cost at most what was out.
    assert leases <= len(jobs) + 8 * (FLAP_SECONDS / 2 + 1)


def test_a_blocked_peer_is_cut_off_at_once_both_ways_until_it_is_allowed(nodes: Nodes) -> None:
    alba, brio = nodes["alba"], nodes["brio"]
    until(lambda: row_of(nodes, "brio", "alba").get("linked"), LINK_SECONDS, "they are linked")
    said = alba.client.ask("peers.block", target="brio", reason="a test")
    assert said["closed"] == [brio.peer]
    assert not row_of(nodes, "alba", "brio").get("linked")
    with pytest.raises(DimError) as no:
        alba.client.connect(brio.addresses[0])
    assert no.value.complaint.code == "E-peers-08"
    wait_turned_away(nodes, "brio", "alba")
    pending = alba.client.submit(triage(), [patient(7)])
    ended = pending.wait(JOB_SECONDS)
    assert ended.status == "ok"
    assert Books(alba.home).executor_of(ended.job)[0] == peer_bytes(nodes["cara"].peer)

    until(lambda: not row_of(nodes, "alba", "brio"), LINK_SECONDS, "what cara passes on of it is not listened to")
    alba.client.ask("peers.allow", target=brio.peer)
    nodes.wait_linked()


def test_a_blocked_network_and_an_allow_list_keep_everybody_out_who_comes_from_there(nodes: Nodes) -> None:
    alba = nodes["alba"]
    closed = alba.client.ask("peers.block", target="127.0.0.0/8", reason="")["closed"]
    assert set(closed) == {nodes["brio"].peer, nodes["cara"].peer}
    wait_turned_away(nodes, "brio", "alba")
    assert [entry["target"] for entry in alba.client.ask("peers.blocked")["blocked"]] == ["127.0.0.0/8"]
    alba.client.ask("peers.allow", target="127.0.0.0/8")
    nodes.wait_linked()


def test_a_killed_node_is_missed_within_three_seconds_and_comes_back_though_every_bootstrap_node_is_dead(
    nodes: Nodes,
) -> None:
    """Last, because it leaves one of them dead: who comes back knows only the bootstrap address of that one."""
    cara, ghost_seconds = nodes["cara"], MISSED_MAX * heartbeat_seconds(3)
    remembered = cara.home / "peers.json"
    until(lambda: remembered.exists() and nodes["brio"].peer in remembered.read_text(), JOB_SECONDS, "it is noted down")
    cara.kill()
    seconds = noticed(nodes, "cara", KILL_SECONDS)
    why = row_of(nodes, "alba", "cara").get("why_not", "")
    until(lambda: not any(row_of(nodes, name, "cara") for name in ("alba", "brio")), ghost_seconds + 0.5, "no ghost")
    print(f"missed after {seconds:.2f} s ({why})")

    nodes["alba"].kill()
    cara.launch(nodes["alba"].addresses)
    cara.wait_ready()
    began = time.monotonic()
    until(lambda: "brio" in cara.linked(), LINK_SECONDS, "it found the swarm by what it remembered")
    print(f"joined again {time.monotonic() - began:.2f} s after it was ready")
    assert time.monotonic() - began < 5.0 * NOISE
    (finding,) = [row for row in cara.client.doctor() if row["check"] == "bootstrap"]
    assert not finding["ok"] and not finding["stops"], "it works, and the doctor says what is dead"
