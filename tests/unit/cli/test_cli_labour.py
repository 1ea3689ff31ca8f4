"""What a person sees of a node's work: the screen of status, from one answer of the node."""

from typing import Any

from dimnode.cli import labour

WAITING: dict[str, Any] = {"name": "", "high": 0, "normal": 0, "low": 0, "running": 0, "share": 1.0}
FOUND: dict[str, Any] = {
    "peer": "12D3KooWabcdefgh",
    "name": "alba",
    "swarm": "open",
    "version": "dimnode/0.1.0",
    "up_seconds": 7.0,
    "addresses": ["/ip4/127.0.0.1/tcp/1"],
    "peers_linked": 1,
    "peers_known": 2,
    "dht_peers": 3,
    "jobs_open": 4,
    "tasks_running": 1,
    "tasks_queued": 5,
    "tasks_finished": {"ok": 9},
    "tasks_refused": {"E-exec-81": 3, "E-exec-84": 1},
    "models": 1,
    "cabinets": 0,
    "sandbox": "landlock+seccomp+rlimits",
    "rss_bytes": 1,
    "held_bytes": 2,
    "journal_bytes": 3,
    "journal_bytes_max": 4,
    "loop_late_p99_ms": 1.0,
    "commits": 1,
    "draining": True,
    "loaded_bytes": 2**20,
    "loaded_bytes_max": 2**30,
    "machine_free_bytes": 2**31,
    "cache_bytes": 2**20,
    "gpu": {"kind": "none", "used_bytes": None},
    "members": [
        {
            "pid": 42,
            "model": "triage\x1b[31m",
            "runtime": "onnx",
            "state": "idle",
            "orders": 0,
            "memory_bytes": 2**20,
            "pinned": True,
            "idle_seconds": 3.0,
        }
    ],
    "queue": [
        {**WAITING, "identity": "12D3KooWsomebody", "normal": 2, "low": 1, "running": 1},
        {**WAITING, "identity": "12D3KooWabcdefgh", "name": "this node", "high": 9, "share": 4.0},
    ],
}


def drawn(found: Any) -> str:
    from rich.console import Console

    console = Console(width=160, no_color=True)
    with console.capture() as capture:
        console.print(labour.screen(found))
    return capture.get()


def test_the_screen_shows_workers_queue_memory_and_that_there_is_no_gpu() -> None:
    text = drawn(FOUND)
    for words in ("DRAINING", "42", "(pinned)", "idle", "this node", "somebody", "gpu", "none", "1.0 MiB of models"):
        assert words in text, words
    assert text.index("this node") < text.index("somebody"), "whoever has most waiting stands first"


def test_what_was_not_taken_is_counted_by_its_code() -> None:
    assert "3 E-exec-81, 1 E-exec-84" in drawn(FOUND)
    assert "refused" not in drawn({**FOUND, "tasks_refused": {}})


def test_an_idle_node_says_so() -> None:
    text = drawn({**FOUND, "members": [], "queue": [], "draining": False})
    assert "nothing is loaded" in text
    assert "nothing waits" in text
    assert "DRAINING" not in text


def test_a_graphics_processor_is_named_with_its_memory() -> None:
    gpu = {"kind": "cuda", "name": "H100", "memory_bytes": 2**36, "used_bytes": 2**30}
    assert "cuda H100, 64.0 GiB, 1.0 GiB in use" in drawn({**FOUND, "gpu": gpu})


def test_a_models_name_cannot_command_the_terminal() -> None:
    assert "\x1b[31m" not in drawn(FOUND)
