"""docs/protocol.md names every protocol, topic, word, operation and limit that the code has, with its value."""

import re
from pathlib import Path

from dimnode.limits import LIMITS
from dimnode.node import jobdoor
from dimnode.p2p import blobs, frames, gossip, pings
from dimnode.p2p.bitswap_words import BITSWAP
from dimnode.p2p.frames import TaskFrame, read_task_frame
from dimnode.p2p.host.circuit_messages import DCUTR, HOP, STOP
from dimnode.p2p.host.multistream import GREETING
from dimnode.p2p.host.services import SERVICES
from dimnode.p2p.membership import heartbeat_seconds
from dimnode.records.ids import RECORD_PREFIX, RecordId, cid_text
from dimnode.records.kinds import OPEN_SWARM_ID

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
BEFORE_LIMITS, _, LIMITS_ONWARD = PAGE.partition("\n## Limits\n")
LIMIT_ROWS = dict(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| ([\d,.]+) \|$", LIMITS_ONWARD, re.MULTILINE))


def sources(folder: str) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "dimnode" / folder).rglob("*.py"))


OPERATIONS = set(re.findall(r'^ +"([a-z]+(?:\.[a-z]+)?)": self\._\w+,', sources("node"), re.MULTILINE))


def value_of(name: str) -> str:
    section, _, field = name.partition(".")
    return f"{getattr(getattr(LIMITS, section), field):,}".removesuffix(".0")


def test_every_protocol_of_ours_is_in_the_table_and_no_other() -> None:
    ours = set(re.findall(r'"(/dim/[a-z]+/\d)"', sources("p2p") + sources("node")))
    assert len(ours) >= 5
    assert set(re.findall(r"^\| `(/dim/[a-z]+/\d)` \|", PAGE, re.MULTILINE)) == ours
    for protocol in ours:
        assert f"\n## `{protocol}`" in PAGE


def test_every_protocol_and_topic_has_its_table() -> None:
    sections = PAGE.split("\n## ")
    wanted = [each for each in sections if each.startswith(("`/dim/", "`/ipfs/bitswap", "Gossip", "DHT"))]
    assert len(wanted) == 11
    head = re.compile(r"^\| (topic \| )?message \| from \| to \| fields \| limits \| errors \|$", re.MULTILINE)
    assert [section.partition("\n")[0] for section in wanted if not head.search(section)] == []


def test_every_protocol_of_libp2p_that_we_speak_is_named() -> None:
    for protocol in (*SERVICES, HOP, STOP, DCUTR, GREETING, BITSWAP):
        assert f"`{protocol}`" in PAGE


def test_every_topic_is_in_the_table_and_no_other() -> None:
    assert set(re.findall(r"^\| `(dim\.[a-z.]+)` \|", PAGE, re.MULTILINE)) == set(gossip.TOPICS)


def test_every_word_of_a_link_is_in_the_table_and_no_other() -> None:
    table = PAGE.partition("## `/dim/task/1`")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z]+)` \|", table, re.MULTILINE)) == frames.WORDS | frames.WITH_RECORDS


def test_every_operation_of_the_control_socket_is_named() -> None:
    assert {"status", "peers", "job.ls"} <= OPERATIONS
    said = PAGE.partition("## The control socket")[2].partition("\n## ")[0]
    assert {operation for operation in OPERATIONS if f"`{operation}`" not in said} == set()


def test_every_limit_on_the_page_has_the_value_of_the_code() -> None:
    assert LIMIT_ROWS
    assert {name: value_of(name) for name in LIMIT_ROWS} == LIMIT_ROWS


def test_every_limit_that_the_page_speaks_of_is_in_its_table() -> None:
    sections = "wire|host|peers|jobs|records|swarm|reach|api|bitswap"
    named = set(re.findall(rf"`((?:{sections})\.[a-z_]+)`", BEFORE_LIMITS))
    assert named - OPERATIONS == LIMIT_ROWS.keys()


def test_the_example_is_the_frame_that_it_says() -> None:
    text = re.findall(r"```hex\n(.*?)```", PAGE, re.DOTALL)[0]
    example = bytes.fromhex("".join(line.partition("#")[0] for line in text.splitlines()))
    frame = TaskFrame("resume", (RecordId(RECORD_PREFIX + bytes(32)), 0, 1))
    assert frame.to_bytes() == example
    assert read_task_frame(example[4:]) == frame


def test_numbers_that_have_no_name_are_those_of_the_code() -> None:
    assert f"{blobs._CHUNK_BYTES:,}" in PAGE
    assert blobs._CHUNK_BYTES == jobdoor._CHUNK_BYTES
    assert f"at most {frames._CODE_CHARACTERS} characters" in PAGE
    assert f"at most {frames._TEXT_CHARACTERS} characters" in PAGE
    assert f"up to {frames._FIELDS_MAX} in `/dim/task/1`, {jobdoor._FIELDS_MAX} in the request" in PAGE
    assert f"1–{frames._WORD_CHARACTERS} characters" in PAGE
    assert f"{gossip.JOBS_PER_MESSAGE} jobs a message" in PAGE
    assert f"Messages of {pings.PING_BYTES} bytes" in PAGE
    assert cid_text(OPEN_SWARM_ID) in PAGE
    assert [heartbeat_seconds(members) for members in (1, 50, 1000)] == [1, 10, 30]
    assert "clamp(N/5, 1, 30)" in PAGE


def test_every_refusal_on_the_page_is_explained() -> None:
    errors = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    for code in re.findall(r"`(E-[a-z0-9]+-\d\d)`", PAGE):
        assert f"| `{code}` |" in errors
