"""The client against a node that speaks the real protocol over a real socket."""

import contextlib
import queue
import random
import signal
import struct
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import pytest

from dimnode.client import Client, read_output, tensor_rows
from dimnode.config import socket_path
from dimnode.control_line import Line
from dimnode.errors import ConfigError, NoNode, Refused, RunFailed
from dimnode.limits import LIMITS, ApiLimits
from dimnode.records.tensors import ITEM_BYTES, Tensor, encode_tensors
from dimnode.wire import pack_frame

sys.path.insert(0, str(Path(__file__).parent / "cli"))
from fake_node import FakeNode, refusal

JOB = {"tasks": [{"model": "triage"}]}
JOB_ID = bytes.fromhex("0181041220") + bytes(32)
EVENT = {"at_ms": 1, "job": JOB_ID, "what": "submitted", "task": 0, "epoch": 0, "peer": None, "text": ""}


def ended(number=0, **more):
    words = {"job": JOB_ID, "status": "ok", "verdict": bytes(37), "outputs": [b"out %d" % number]}
    return {"result": {**words, **more}}


def test_without_a_node_the_client_says_what_to_do(tmp_path):
    with pytest.raises(NoNode) as caught:
        Client(tmp_path)
    complaint = caught.value.complaint
    assert complaint.code == "E-cli-01"
    assert complaint.hint.startswith("dim up")


def test_answers_come_as_plain_lists_and_maps(tmp_path):
    answers = {"peers": {"result": {"peers": [{"name": "alba"}], "me": "x"}}, "status": {"result": {"models": 3}}}
    with FakeNode(tmp_path, **answers), Client(tmp_path) as client:
        assert client.peers() == [{"name": "alba"}]
        assert client.status() == {"models": 3}


@pytest.mark.parametrize(("exit_code", "kind"), [(4, Refused), (2, ConfigError), (1, RunFailed)])
def test_an_error_of_the_node_is_raised_by_whose_fault_it_is(tmp_path, exit_code, kind):
    with FakeNode(tmp_path, status=refusal("E-api-03", "no", exit_code)), Client(tmp_path) as client:
        with pytest.raises(kind) as caught:
            client.status()
        assert caught.value.complaint.lines() == ["error E-api-03: no", "cause: a cause", "hint: a hint"]


def test_a_refusal_says_when_later_may_work(tmp_path):
    with FakeNode(tmp_path, job__submit=refusal("E-jobs-01", "full")), Client(tmp_path) as client:
        with pytest.raises(Refused) as caught:
            client.run(JOB)
        assert caught.value.retry_after_ms == 7


def test_a_job_that_failed_is_an_end_and_no_exception(tmp_path):
    failed = ended(status="failed", code="E-exec-13", reason="shape", outputs=[])
    with FakeNode(tmp_path, job__submit=failed), Client(tmp_path) as client:
        found = client.run(JOB)
    assert (found.status, found.code, found.reason, found.outputs) == ("failed", "E-exec-13", "shape", ())


def test_a_run_sends_job_blobs_nonce_and_hands_back_the_receipt(tmp_path):
    with FakeNode(tmp_path, job__submit=ended(receipt=b"DIMR1")) as node, Client(tmp_path) as client:
        assert client.run(JOB, [b"blob"], nonce=bytes(16)).receipt == b"DIMR1"
    [request] = node.asked("job.submit")
    assert (request["job"], request["blobs"], request["nonce"], request["receipt"]) == (JOB, [b"blob"], bytes(16), True)


def test_live_events_reach_the_watcher_before_the_run_returns(tmp_path):
    heard = []
    with FakeNode(tmp_path, job__submit={"events": [EVENT, EVENT], **ended()}), Client(tmp_path) as client:
        client.run(JOB, watch=heard.append)
        assert heard == [EVENT, EVENT]


def test_a_timeout_says_that_the_job_goes_on(tmp_path):
    with FakeNode(tmp_path, job__submit={"events": [EVENT]}), Client(tmp_path) as client:
        pending = client.submit(JOB, watch=lambda _: None)
        while pending.job is None:  # who reads nothing in its time has heard of no job
            assert pending.poll(0.02) is None
        with pytest.raises(RunFailed) as caught:
            pending.wait(0.02)
        assert caught.value.complaint.code == "E-cli-03"
        assert caught.value.complaint.what == "no verdict within 0.02 s"
        assert pending.job == JOB_ID
        assert pending.poll(0.0) is None


def test_a_connection_that_breaks_says_how_to_find_the_jobs(tmp_path):
    with FakeNode(tmp_path, job__submit={"hang_up": True}), Client(tmp_path) as client:
        with pytest.raises(NoNode) as caught:
            client.run(JOB)
        assert "go on" in caught.value.complaint.cause
        assert "dim job ls" in caught.value.complaint.hint
        with pytest.raises(NoNode):
            client.status()


BRISK = ApiLimits(silence_seconds_max=0.05, probe_seconds_max=0.2)
PATIENT = ApiLimits(silence_seconds_max=0.05, probe_seconds_max=20.0)
_LISTENER = """
import socket, sys
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen(int(sys.argv[2]))
print("listens", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def stopped_process(home, backlog):
    """A process that listens where the node of this home would, and does not run."""
    words = [sys.executable, "-c", _LISTENER, str(socket_path(home)), str(backlog)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "listens\n"
            process.send_signal(signal.SIGSTOP)
            yield
        finally:
            process.kill()
            socket_path(home).unlink(missing_ok=True)


def brisk(home, limits=BRISK):
    client = Client(home)
    client._line._limits = limits
    return client


QUESTIONS = {
    "an answer": lambda client: client.status(),
    "a job": lambda client: client.run(JOB),
    "a job, looking in": lambda client: [client.submit(JOB).poll(0.02) for _ in range(1000)],
    "many jobs": lambda client: list(client.run_many([(JOB, [b""])])),
    "what happens to a job": lambda client: list(client.follow(JOB_ID, 0.02)),
    "that so much is read": lambda client: client.submit(JOB, [bytes(8 * 1024 * 1024)]),
}


@pytest.mark.slow
@pytest.mark.parametrize("wanted", QUESTIONS)
def test_a_node_whose_process_is_stopped_is_told_whatever_one_waits_for(tmp_path, wanted):
    with stopped_process(tmp_path, 8), brisk(tmp_path) as client, pytest.raises(NoNode) as caught:
        QUESTIONS[wanted](client)
    complaint = caught.value.complaint
    assert complaint.code == "E-cli-07" and len(complaint.lines()) == 3
    assert "kill -CONT" in complaint.hint


def test_a_stopped_node_that_takes_no_more_connections_in_is_told_too(tmp_path):
    with stopped_process(tmp_path, 0), contextlib.ExitStack() as lines:

        def connect_until_it_is_full():
            while True:
                lines.enter_context(contextlib.closing(Line(tmp_path, None, BRISK)))

        with pytest.raises(NoNode) as caught:
            connect_until_it_is_full()
    assert caught.value.complaint.code == "E-cli-07"


def test_a_node_that_only_takes_long_is_waited_for(tmp_path):
    asked = threading.Event()

    def slow(_):
        assert asked.wait(60)
        return {"result": {"models": 3}}

    def pinged(_):
        if len(node.asked("ping")) > 2:
            asked.set()
        return {"result": {}}

    with FakeNode(tmp_path, status=slow, ping=pinged) as node, brisk(tmp_path, PATIENT) as client:
        assert client.status() == {"models": 3}


def test_bytes_that_are_no_frame_close_the_connection(tmp_path):
    with FakeNode(tmp_path) as node, Client(tmp_path) as client:
        client.status()
        node._clients[0].sendall(b"\xff\xff\xff\xff garbage")
        with pytest.raises(NoNode):
            client.status()


@pytest.mark.parametrize(
    "said", [b"\xff\xff\xff\xff garbage", pack_frame([1]), pack_frame({"result": {}}), pack_frame({"id": 1})]
)
def test_bytes_that_are_no_answer_wake_every_thread_that_waits(tmp_path, said):
    asked: queue.Queue[object] = queue.Queue()
    lost: queue.Queue[Exception] = queue.Queue()

    def heard(request):
        asked.put(request)
        return {}

    with FakeNode(tmp_path, status=heard) as node, Client(tmp_path) as client:

        def wait():
            try:
                client.status()
            except Exception as error:
                lost.put(error)

        threads = [threading.Thread(target=wait, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in threads:
            asked.get(timeout=60)
        node._clients[0].sendall(said)
        found = [lost.get(timeout=60) for _ in threads]
        assert {type(error) for error in found} == {NoNode}, found


def test_many_jobs_run_over_one_connection_in_the_order_in_which_they_end(tmp_path):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    held: list = []

    def reply(request):
        number = int(request["blobs"][0])
        return ended(number) if number % 7 else refusal("E-job-02", "no")

    with FakeNode(tmp_path, job__submit=reply) as node, Client(tmp_path) as client:
        count = rng.randrange(50, 400)
        jobs = [(JOB, [str(number).encode()]) for number in range(count)]
        held = list(client.run_many(iter(jobs), rng.randrange(1, 64)))
        assert len(node.asked("job.submit")) == count
    assert sorted(end.index for end in held) == list(range(count))
    for end in held:
        if end.index % 7:
            assert (end.status, end.outputs) == ("ok", (b"out %d" % end.index,))
        else:
            assert (end.status, end.code, end.job) == ("refused", "E-job-02", b"")
        assert end.seconds >= 0


def test_a_job_that_is_refused_unsent_ends_as_one_that_the_node_refuses_and_the_others_go_on(tmp_path):
    within: list[object] = []
    within.append(within)
    large = ["x" * (LIMITS.api.request_bytes_max // 16)] * 20
    jobs = [
        (JOB, [b"0"]),
        ({**JOB, "input": {"x": [[1.0]] * (LIMITS.api.inline_rows_max + 1)}}, []),
        (JOB, [bytes(LIMITS.exec.input_bytes_max + 1)]),
        ({**JOB, "label": large}, []),
        (JOB, [b"4"]),
        ({**JOB, "input": {"x": [[1.0] * (LIMITS.api.inline_rows_max + 1)]}}, []),
        ({**JOB, "input": {"x": [[2**64]]}}, []),
        ({**JOB, "input": {"x": [[Fraction(1, 2)]]}}, []),
        ({**JOB, "label": "\ud800"}, []),
        ({**JOB, "input": {"x": within}}, []),
        (JOB, [b"9"]),
    ]
    codes = {1: "E-cli-05", 2: "E-input-05", 3: "E-cli-04", 5: "E-cli-05"} | dict.fromkeys(range(6, 10), "E-cli-04")
    with FakeNode(tmp_path, job__submit=lambda request: ended(int(request["blobs"][0]))) as node:
        for concurrency in (1, 2, 64):
            with Client(tmp_path) as client:
                ends = {end.index: end for end in client.run_many(jobs, concurrency)}
            assert {index: end.status for index, end in ends.items() if end.job} == {0: "ok", 4: "ok", 10: "ok"}
            refusals = {index: (end.status, end.code) for index, end in ends.items() if not end.job}
            assert refusals == {number: ("refused", code) for number, code in codes.items()}
            assert all(end.seconds == 0 and end.reason for end in ends.values() if not end.job)
        assert len(node.asked("job.submit")) == 9


def test_threads_may_share_a_client(tmp_path):
    wrong = []
    with FakeNode(tmp_path, job__submit=lambda r: ended(int(r["blobs"][0]))), Client(tmp_path) as client:

        def work(base):
            for number in range(base, base + 50):
                if client.run(JOB, [b"%d" % number]).outputs != (b"out %d" % number,):
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=(100 * place,)) for place in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not wrong


def test_an_input_over_the_limit_is_refused_before_it_is_sent(tmp_path):
    class Large(bytes):
        def __len__(self):
            return LIMITS.exec.input_bytes_max + 1

    with FakeNode(tmp_path) as node, Client(tmp_path) as client:
        with pytest.raises(Refused, match="E-input-05"):
            client.run(JOB, [Large()])
        assert not node.requests


def test_more_rows_inline_than_a_frame_takes_are_refused_with_the_way_out(tmp_path):
    rows = [[1.0]] * (LIMITS.api.inline_rows_max + 1)
    with FakeNode(tmp_path) as node, Client(tmp_path) as client:
        with pytest.raises(Refused, match="E-cli-05") as caught:
            client.run({**JOB, "input": {"x": rows}})
        assert "tensor_rows" in caught.value.complaint.hint
        assert not node.requests


def test_a_followed_job_yields_events_and_silence(tmp_path):
    with FakeNode(tmp_path, job__watch={"events": [EVENT]}), Client(tmp_path) as client:
        news = client.follow(JOB_ID, 0.01)
        assert next(news) == EVENT
        assert next(news) is None


def test_following_ends_with_the_job_whose_id_may_be_typed(tmp_path):
    watched = {"events": [EVENT], "result": {"ended": True}}
    with FakeNode(tmp_path, job__watch=watched) as node, Client(tmp_path) as client:
        assert list(client.follow("lastletters")) == [EVENT]
        assert list(client.follow("lastletters", 60.0)) == [EVENT]
    assert node.asked("job.watch")[0]["job"] == "lastletters"


def test_a_detached_job_returns_its_id_at_once(tmp_path):
    submitted = {"result": {"job": JOB_ID, "status": "submitted"}}
    with FakeNode(tmp_path, job__submit=submitted) as node, Client(tmp_path) as client:
        assert client.detach(JOB) == JOB_ID
    assert node.asked("job.submit")[0]["wait"] is False


def test_paths_are_made_absolute_before_the_node_sees_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with FakeNode(tmp_path, models__add={"result": {}}, data__add={"result": {}}) as node, Client(tmp_path) as client:
        client.add_model({"name": "m"}, "m.onnx")
        client.add_data("ward", "rows.csv", policy={"operations": []})
    assert node.asked("models.add")[0]["path"] == str(tmp_path / "m.onnx")
    assert node.asked("data.add")[0]["path"] == str(tmp_path / "rows.csv")


@pytest.mark.parametrize("rows", [0, -1, LIMITS.batch.rows_per_job_max + 1])
def test_a_batch_of_no_rows_per_job_is_refused_and_does_not_run_for_ever(tmp_path, rows):
    with FakeNode(tmp_path, models__ls={"result": {"models": []}}) as node, Client(tmp_path) as client:
        with pytest.raises(ConfigError, match="E-cli-44"):
            list(client.run_batch("triage", [[1.0]], rows_per_job=rows))
        assert not node.requests


def test_rows_become_one_float32_tensor_and_come_back():
    assert read_output(tensor_rows([[1, 2.5], [3, -4]], "y")) == {"y": [[1.0, 2.5], [3.0, -4.0]]}


def test_ragged_rows_and_words_are_refused():
    for rows in ([[1.0], [1.0, 2.0]], [["a"]], [[1e300]]):
        with pytest.raises(Refused, match="E-input-01"):
            tensor_rows(rows)


def test_every_dtype_of_tensors_1_can_be_read():
    letters = {"float64": "d", "float32": "f", "float16": "e", "int64": "q", "int32": "i", "int16": "h", "int8": "b"}
    letters |= {"uint8": "B", "bool": "?"}
    assert letters.keys() == ITEM_BYTES.keys()
    tensors = [Tensor(name, name, (2, 1), struct.pack(f"<2{letter}", 1, 0)) for name, letter in letters.items()]
    assert read_output(encode_tensors(tensors)) == {name: [[1], [0]] for name in letters}
    assert read_output(encode_tensors([Tensor("s", "int64", (), struct.pack("<q", 7))])) == {"s": 7}


@pytest.mark.slow
def test_the_client_is_a_lazy_attribute_and_imports_neither_trio_nor_libp2p_nor_numpy():
    program = (
        "import sys, dimnode\n"
        "assert 'dimnode.client' not in sys.modules\n"
        "from dimnode import Client\n"
        "assert Client.__module__ == 'dimnode.client'\n"
        "found = {'trio', 'libp2p', 'numpy', 'rich', 'nacl'} & set(sys.modules)\n"
        "assert not found, found\n"
        "assert not hasattr(dimnode, 'Server')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_a_home_may_be_given_as_text(tmp_path):
    with pytest.raises(NoNode, match="E-cli-01"):
        Client(str(tmp_path))


@pytest.mark.parametrize(
    ("dtype", "shape"), [("uint8", (5_000_000,)), ("uint8", (2_200_000, 1, 1)), ("float32", (2_200_000, 1))]
)
def test_an_answer_that_would_fill_the_memory_as_lists_is_not_made_into_lists(dtype, shape) -> None:
    size = {"uint8": 1, "float32": 4}[dtype] * shape[0]
    with pytest.raises(RunFailed, match="E-cli-06"):
        read_output(encode_tensors([Tensor("x", dtype, shape, bytes(size))]))


def test_the_bound_of_lists_counts_numbers_and_inner_lists() -> None:
    blob = encode_tensors([Tensor("x", "uint8", (3, 2), bytes(6))])
    assert read_output(blob, cells_max=9) == {"x": [[0, 0]] * 3}
    with pytest.raises(RunFailed, match="9 numbers and rows, at most 8"):
        read_output(blob, cells_max=8)


def test_the_hint_of_a_home_that_has_no_node_names_that_home(tmp_path) -> None:
    with pytest.raises(NoNode) as caught:
        Client(tmp_path / "a home")
    assert caught.value.complaint.hint == f"dim up --home '{tmp_path}/a home'"
