"""Models between real nodes: policies are kept by whoever holds and runs, files come with the job, damage is found."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dimnode.audit.metering import metered
from dimnode.audit.verifier import verify
from dimnode.client import tensor_rows
from dimnode.demo.setting import card_map
from dimnode.errors import DimError
from tests.e2e.harness import JOB_SECONDS, LINK_SECONDS, MODEL, MODEL_FEATURES, Nodes, RealNode, real_nodes, until

pytestmark = pytest.mark.slow
ROWS = tensor_rows([[1.0] * MODEL_FEATURES])
NAMES = ("alba", "brio", "cato")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("models")
    (folder / "alba").mkdir(mode=0o700)
    (folder / "alba" / "config.toml").write_text('http_listen = "127.0.0.1:0"\n')
    (folder / "cato").mkdir(mode=0o700)
    (folder / "cato" / "config.toml").write_text('fetch_models = "anyone"\nfetch_model_gb_max = 0.5\n')
    (folder / "brio").mkdir(mode=0o700)
    (folder / "brio" / "config.toml").write_text('fetch_models = "never"\n')
    with real_nodes(folder, dict.fromkeys(NAMES, True)) as started:
        started.wait_linked()
        yield started


CLASSES = ["benign", "malignant"]


def card_of(name: str, **more: Any) -> tuple[dict[str, Any], Path]:
    from dimnode.demo.assets_index import read_model_card

    card = read_model_card(MODEL)
    return {**card_map(card), "name": name, **more}, card.path


def own_file(folder: Path) -> Path:
    """The model in a file that no other test's model has: an ONNX file may end with one more doc_string."""
    path = folder / "own.onnx"
    path.write_bytes(card_of("own")[1].read_bytes() + b"\x32\x08" + os.urandom(4).hex().encode())
    return path


def add_own(node: RealNode, name: str, folder: Path, **more: Any) -> str:
    """Add such a model; its id."""
    card = {key: value for key, value in card_of(name, **more)[0].items() if key != "sha256"}
    return str(node.client.add_model(card, own_file(folder))["model"])


def add(nodes: Nodes, owner: str, name: str, **more: Any) -> str:
    card, path = card_of(name, **more)
    return str(nodes[owner].client.add_model(card, path)["model"])


def ask(nodes: Nodes, who: str, op: str, **arguments: Any) -> dict[str, Any]:
    return dict(nodes[who].client.ask(op, **arguments))


def code_of(nodes: Nodes, who: str, op: str, **arguments: Any) -> str:
    with pytest.raises(DimError) as caught:
        ask(nodes, who, op, **arguments)
    return caught.value.complaint.code


def wait_heard(nodes: Nodes, who: str, name: str) -> None:
    def heard() -> bool:
        return any(row["name"].startswith(name) for row in nodes[who].client.models())

    until(heard, LINK_SECONDS, f"{who} hears of {name}")


def may(nodes: Nodes, who: str, name: str, operation: str = "infer") -> dict[str, Any]:
    return dict(ask(nodes, who, "models.show", model=name)["may"][operation])


def run(nodes: Nodes, who: str, name: str, peer: str = "") -> Any:
    task = {"model": name} | ({"peer": peer} if peer else {})
    return nodes[who].client.run({"tasks": [task]}, [ROWS], receipt=True, timeout_seconds=JOB_SECONDS)


def test_a_restricted_model_goes_where_its_publisher_lets_it_and_nowhere_else(nodes: Nodes) -> None:
    model = add(nodes, "alba", "secretary", access="restricted")
    for who in ("brio", "cato"):
        wait_heard(nodes, who, "secretary")
        assert may(nodes, who, "secretary")["code"] == "E-models-21"
        assert code_of(nodes, who, "models.pull", model="secretary") == "E-models-21"
    for op, more in (("models.grant", {"model": "secretary"}), ("models.revoke", {"model": "secretary"})):
        assert code_of(nodes, "alba", op, **more, peer="brio") == "E-peers-09"  # anybody may call itself so
    assert code_of(nodes, "alba", "peers.allow", target=nodes["brio"].peer[-12:]) == "E-peers-09"
    wrong = {"model": "secretary", "peer": nodes["brio"].peer, "operations": ["infer", "dance"]}
    assert code_of(nodes, "alba", "models.grant", **wrong) == "E-models-07"
    granted = ask(nodes, "alba", "models.grant", model="secretary", peer=nodes["brio"].peer)
    assert granted["operations"] == ["fetch", "infer", "evaluate"]
    until(lambda: may(nodes, "brio", "secretary", "fetch")["allowed"], LINK_SECONDS, "brio hears of its grant")
    assert ask(nodes, "brio", "models.pull", model="secretary")["model"] == model
    for peer in ("alba", "brio"):
        assert run(nodes, "brio", model, nodes[peer].peer).status == "ok"
    # The executors decide for themselves: cato has no grant, whoever holds the files.
    wait_heard(nodes, "cato", "secretary")
    refused = run(nodes, "cato", model)
    assert (refused.status, refused.code) == ("failed", "E-models-21")
    # A grant that was taken back counts at the executor, too, and at the holder of the files.
    ask(nodes, "alba", "models.revoke", model="secretary", peer=nodes["brio"].peer)
    until(lambda: may(nodes, "brio", "secretary")["code"] == "E-models-23", LINK_SECONDS, "brio hears of the end")
    assert run(nodes, "brio", model, nodes["alba"].peer).code == "E-models-23"
    ask(nodes, "brio", "models.rm", model=model)
    ask(nodes, "brio", "blobs.gc", bytes=0)
    assert code_of(nodes, "brio", "models.pull", model=model) == "E-models-23"


def test_a_model_for_sale_is_metered_until_its_grant_ends_by_itself(nodes: Nodes) -> None:
    price = {"unit": "row", "micro": 5, "currency": "EUR"}
    model = add(nodes, "alba", "shortlived", access="pay-per-use", price=price)
    wait_heard(nodes, "brio", "shortlived")
    ask(nodes, "alba", "models.grant", model=model, peer=nodes["brio"].peer)
    until(lambda: may(nodes, "brio", model)["allowed"], LINK_SECONDS, "brio hears of its grant")
    rows = tensor_rows([[1.0] * MODEL_FEATURES] * 3)
    job = {"tasks": [{"model": model, "peer": nodes["alba"].peer}]}
    ended = nodes["brio"].client.run(job, [rows], receipt=True, timeout_seconds=JOB_SECONDS)
    assert ended.status == "ok" and ended.receipt is not None
    report = verify(ended.receipt)
    assert report.status == 0 and report.case is not None
    [entry] = metered(report.case)
    assert (entry.unit, entry.units, entry.micro, entry.currency) == ("row", 3, 5, "EUR")
    assert [check.outcome for check in report.checks if check.code == "R-METER"] == ["pass"]
    # Another peer's ends by the clock, at the executor and at the holder alike.
    wait_heard(nodes, "cato", "shortlived")
    soon_ms = time.time_ns() // 1_000_000 + 1500
    ask(nodes, "alba", "models.grant", model=model, peer=nodes["cato"].peer, expires_ms=soon_ms)
    until(lambda: may(nodes, "cato", model)["code"] == "E-models-22", LINK_SECONDS, "cato's grant ends")
    assert run(nodes, "cato", model, nodes["alba"].peer).code == "E-models-22"
    assert code_of(nodes, "cato", "models.pull", model=model) == "E-models-22"


def test_a_private_model_is_run_at_home_and_never_leaves(nodes: Nodes, tmp_path: Path) -> None:
    model = add_own(nodes["alba"], "diary", tmp_path, access="private")
    root = ask(nodes, "alba", "models.show", model="diary")["files"][0]["root"]
    assert run(nodes, "alba", "diary", nodes["alba"].peer).status == "ok"
    assert "diary" in loaded(nodes, "alba")
    add(nodes, "alba", "bulletin", summary="told after the diary")
    for who in ("brio", "cato"):
        wait_heard(nodes, who, "bulletin")
        assert model not in {row["model"] for row in nodes[who].client.models()}
        assert code_of(nodes, who, "models.pull", model=model, peers=[nodes["alba"].peer]) == "E-models-01"
    # Its own publisher cannot send it away by mistake either: cato would fetch for anyone.
    sent = run(nodes, "alba", model, nodes["cato"].peer)
    assert sent.status == "failed" and sent.code in ("E-models-01", "E-models-20")
    for who in ("brio", "cato"):
        assert root not in {row["blob"] for row in ask(nodes, who, "blobs.ls")["blobs"]}
    ask(nodes, "alba", "models.rm", model="diary")
    until(lambda: "diary" not in loaded(nodes, "alba"), JOB_SECONDS, "no idle worker keeps its files")


def loaded(nodes: Nodes, who: str) -> set[str]:
    """Models that workers hold."""
    return {row["model"] for row in nodes[who].client.status()["members"]}


def test_an_update_follows_and_a_withdrawn_model_is_found_no_more_but_its_receipts_verify(nodes: Nodes) -> None:
    old = add(nodes, "alba", "oracle")
    wait_heard(nodes, "brio", "oracle")
    receipt = run(nodes, "brio", "oracle", nodes["alba"].peer).receipt
    new = ask(nodes, "alba", "models.update", model="oracle", card={"version": "2.0.0", "summary": "better"})["model"]
    assert code_of(nodes, "alba", "models.update", model="oracle", card={"version": "2.0.0"}) == "E-models-34"
    assert code_of(nodes, "brio", "models.withdraw", model=old) == "E-models-37"
    wait_heard(nodes, "brio", "oracle:2.0.0")
    assert ask(nodes, "brio", "models.show", model="oracle")["previous"] == old
    ask(nodes, "alba", "models.withdraw", model=new, reason="a label was wrong", replacement=old)

    def gone() -> bool:
        return ask(nodes, "brio", "models.show", model=new)["withdrawn"] == "a label was wrong"

    until(gone, LINK_SECONDS, "brio hears of the withdrawal")
    assert code_of(nodes, "brio", "job.validate", job={"tasks": [{"model": "oracle:2.0.0"}]}) == "E-models-24"
    assert ask(nodes, "brio", "models.show", model="oracle")["model"] == old
    assert code_of(nodes, "alba", "job.validate", job={"tasks": [{"model": new}]}) == "E-models-24"
    assert verify(receipt).status == 0


def test_a_model_that_a_job_names_is_fetched_while_the_job_waits(nodes: Nodes) -> None:
    model = add(nodes, "alba", "traveller")
    wait_heard(nodes, "brio", "traveller")
    ended = run(nodes, "brio", "traveller", nodes["cato"].peer)  # cato lacks it and fetches for anyone
    assert ended.status == "ok"
    assert model in {row["model"] for row in nodes["cato"].client.models() if row["here"]}
    assert ask(nodes, "cato", "models.verify", model=model)["holds"]


def test_a_peer_is_asked_to_have_a_model_ready_and_decides_itself(nodes: Nodes) -> None:
    model = add(nodes, "alba", "early-bird")
    wait_heard(nodes, "cato", "early-bird")
    assert ask(nodes, "alba", "models.warm", model=model, peer=nodes["cato"].peer)["state"] in ("coming", "here")
    until(lambda: ask(nodes, "cato", "models.show", model=model)["here"], LINK_SECONDS, "cato has it")
    with pytest.raises(DimError) as no:
        ask(nodes, "alba", "models.warm", model=model, peer=nodes["brio"].peer)
    assert no.value.complaint.code == "E-models-31"
    assert "fetch_models" in no.value.complaint.hint and "settings there" in no.value.complaint.hint


def test_a_queued_job_keeps_its_model_whatever_the_operator_removes(nodes: Nodes, tmp_path: Path) -> None:
    alba = nodes["alba"]
    add(nodes, "alba", "warms-up")
    assert run(nodes, "alba", "warms-up", alba.peer).status == "ok"  # now the zygote of its runtime stands
    add_own(alba, "in-use", tmp_path, access="private")
    root = ask(nodes, "alba", "models.show", model="in-use")["files"][0]["root"]
    children = alba.family()
    for child in children:  # nothing that the node started moves: the job has to wait
        child.suspend()
    try:
        job = {"tasks": [{"model": "in-use", "peer": alba.peer}]}
        called_off, wanted = alba.client.detach(job, [ROWS]), alba.client.detach(job, [ROWS])
        until(lambda: alba.client.status()["tasks_held"] == 2, JOB_SECONDS, "both tasks are here")
        ask(nodes, "alba", "models.rm", model="in-use")
        assert root not in ask(nodes, "alba", "blobs.gc", bytes=0)["removed"]
        assert code_of(nodes, "alba", "blobs.rm", blob=root) == "E-store-36"
        alba.client.cancel(called_off)
    finally:
        for child in children:
            child.resume()
    until(lambda: not alba.client.status()["jobs_open"], JOB_SECONDS, "both jobs end")
    assert alba.client.result(wanted).status == "ok"
    gone = lambda: root in ask(nodes, "alba", "blobs.gc", bytes=0)["removed"]  # noqa: E731
    until(gone, JOB_SECONDS, "nobody needs the file any more")


def test_uploads_become_a_model_that_peers_run_as_far_as_its_publisher_lets_them(nodes: Nodes, tmp_path: Path) -> None:
    alba = nodes["alba"]
    stream = {"Content-Type": "application/octet-stream"}
    content = own_file(tmp_path).read_bytes()
    with over_http(alba) as http:
        parts = (("model.onnx", content), ("labels.txt", b"benign\nmalignant\n"))
        files = [
            {"path": path, "blob": http.post("/dim/v1/blobs", content=raw, headers=stream).json()["blob"]}
            for path, raw in parts
        ]
        added = http.post(
            "/dim/v1/models", json={"files": files, "name": "over-http", "access": "restricted", "labels": CLASSES}
        )
        assert added.status_code == 201, added.text
        shown = http.get("/dim/v1/models/over-http").json()
        assert [(row["path"], row["role"]) for row in shown["files"]] == [
            ("labels.txt", "labels"),
            ("model.onnx", "model"),
        ]
        assert shown["inputs"][0][0] == "x"  # read from the graph
        upload = alba.home / "uploads" / files[0]["blob"]
        blob = alba.home / "blobs" / shown["files"][1]["root"]
        assert upload.stat().st_ino == blob.stat().st_ino
        assert http.post("/dim/v1/models/over-http/verify").json()["holds"]
        place = f"/dim/v1/models/{shown['model']}"
        wait_heard(nodes, "brio", "over-http")
        assert code_of(nodes, "brio", "models.pull", model="over-http") == "E-models-21"
        assert http.post(f"{place}/grant", json={"peer": "brio"}).json()["error"]["code"] == "E-peers-09"
        to_brio = {"peer": nodes["brio"].peer}
        assert http.post(f"{place}/grant", json=to_brio).status_code == 201
        until(lambda: may(nodes, "brio", "over-http", "fetch")["allowed"], LINK_SECONDS, "brio has its grant")
        ask(nodes, "brio", "models.pull", model="over-http")
        until(lambda: http.get(place).json()["peers"], LINK_SECONDS, "alba hears that brio has it")
        job = {"tasks": [{"model": "over-http", "peer": "brio"}], "input": {"x": [[1.0] * MODEL_FEATURES]}}
        ended = http.post("/dim/v1/jobs", json=job, params={"wait": int(JOB_SECONDS)})
        assert ended.json().get("status") == "ok", ended.text
        [output] = ended.json()["outputs"]
        [label] = next(tensor["values"] for tensor in output["tensors"] if tensor["name"] == "label")
        assert output["predicted"] == [CLASSES[label]]
        assert len(http.post(f"{place}/revoke", json=to_brio).json()["revoked"]) == 1
        assert http.post(f"{place}/revoke", json=to_brio).status_code == 404
        assert http.post(f"{place}/withdraw", json={"reason": "a test"}).status_code == 200
        assert http.get(place).json()["withdrawn"] == "a test"
        assert http.post("/dim/v1/jobs", json=job).status_code == 409


def test_a_card_that_is_not_its_models_is_refused_at_every_door(nodes: Nodes, tmp_path: Path) -> None:
    """Over HTTP, over the control socket, as an update; the command line looks first and says that it did."""
    alba, path = nodes["alba"], own_file(tmp_path)
    card = {"name": "mistaken", "inputs": [["x", "float32", [-1, 1]]], "outputs": [["label", "int64", [-1]]]}
    with over_http(alba) as http:
        stream = {"Content-Type": "application/octet-stream"}
        blob = http.post("/dim/v1/blobs", content=path.read_bytes(), headers=stream).json()["blob"]
        said = http.post("/dim/v1/models", json={"blob": blob, **card})
        assert (said.status_code, said.json()["error"]["code"]) == (400, "E-models-07"), said.text
        assert f"x float32[-1, {MODEL_FEATURES}]" in said.json()["error"]["hint"]
    assert code_of(nodes, "alba", "models.add", card=card, path=str(path)) == "E-models-07"
    assert code_of(nodes, "alba", "models.add", card={**card, "inputs": 7}, path=str(path)) == "E-models-07"
    (tmp_path / "junk.onnx").write_bytes(os.urandom(1000))
    for more in ({}, card):
        wrong = {"name": "junk", **more}
        assert code_of(nodes, "alba", "models.add", card=wrong, path=str(tmp_path / "junk.onnx")) == "E-exec-22"
    bare = alba.client.add_model({"name": "bare"}, path)["model"]
    assert ask(nodes, "alba", "models.show", model=bare)["inputs"] == [["x", "float32", [-1, MODEL_FEATURES]]]
    update = {"version": "2.0.0", "inputs": card["inputs"]}
    assert code_of(nodes, "alba", "models.update", model="bare", card=update, path=str(path)) == "E-models-07"
    assert not {"mistaken", "junk"} & {str(row["name"]).split(":")[0] for row in alba.client.models()}


def over_http(node: RealNode) -> httpx.Client:
    """The operator's own client of the HTTP door, which opens with its key."""
    command = [sys.executable, "-m", "dimnode.cli.main", "keys", "new", "--json", "--scope", "admin"]
    done = subprocess.run([*command, "--home", str(node.home)], capture_output=True, text=True, timeout=120, check=True)
    said = json.loads(done.stdout)
    return httpx.Client(base_url=said["url"], headers={"Authorization": f"Bearer {said['key']}"}, timeout=120)


def test_a_flipped_byte_is_found_and_the_model_is_whole_again_after_a_pull(nodes: Nodes) -> None:
    model = add(nodes, "alba", "fragile")
    wait_heard(nodes, "brio", "fragile")
    ask(nodes, "brio", "models.pull", model="fragile")
    root = ask(nodes, "brio", "models.show", model="fragile")["files"][0]["root"]
    path = Path(ask(nodes, "brio", "blobs.get", blob=root)["path"])
    for as_a_disk_does, state in ((True, "damaged"), (False, "missing")):  # who writes to a file also moves its stamp
        flip(path, keep_stamp=as_a_disk_does)
        found = ask(nodes, "brio", "models.verify", model="fragile")
        assert not found["holds"]
        assert [row["state"] for row in found["files"]] == [state]
        assert not ask(nodes, "brio", "models.show", model=model)["here"]
        assert not path.exists()
        ask(nodes, "brio", "models.pull", model="fragile")
        assert ask(nodes, "brio", "models.verify", model="fragile")["holds"]


def flip(path: Path, *, keep_stamp: bool) -> None:
    """One bit of a file of the store."""
    said = path.stat()
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))
    if keep_stamp:
        os.utime(path, ns=(said.st_atime_ns, said.st_mtime_ns))


def test_a_pull_goes_on_after_a_kill_where_it_was_and_a_kill_costs_16_mib_at_most(nodes: Nodes, tmp_path: Path) -> None:
    def served() -> int:
        return int(ask(nodes, "alba", "blobs.stat")["served_bytes"])

    folder = tmp_path / "large"
    folder.mkdir()
    with (folder / "weights.safetensors").open("wb") as file:
        for _ in range(300):
            file.write(os.urandom(1 << 20))
    (folder / "config.json").write_text("{}")
    card = {"name": "large", "licence": "x", "inputs": [["x", "float32", [-1]]], "outputs": []}
    nodes["alba"].client.ask("models.add", card=card, path=str(folder), looked_at=True)  # no weights of anything
    wait_heard(nodes, "brio", "large")
    model, before = ask(nodes, "brio", "models.show", model="large")["model"], served()
    child = os.fork()
    if not child:
        try:
            from dimnode.client import Client

            Client(nodes["brio"].home).ask("models.pull", model="large")
        finally:
            os._exit(0)

    def some() -> bool:
        rows = ask(nodes, "brio", "blobs.progress")["progress"]
        return any(row["name"] == model and row["bytes"] > 40 << 20 for row in rows)

    until(some, JOB_SECONDS, "some of it is here")
    nodes["brio"].kill()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    nodes.restart("brio")
    kept = ask(nodes, "brio", "blobs.stat")["part_bytes"]
    assert kept > 0
    wait_heard(nodes, "brio", "large")
    ask(nodes, "brio", "models.pull", model="large")
    assert 300 << 20 <= served() - before <= 316 << 20
    assert ask(nodes, "brio", "models.verify", model="large")["holds"]
    assert ask(nodes, "brio", "models.rm", model="large")["model"] == model
    assert not ask(nodes, "brio", "models.show", model="large")["here"]
