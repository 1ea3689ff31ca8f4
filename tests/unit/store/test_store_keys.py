"""The key book: what it keeps, and what nobody can read out of it."""

import stat
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from dimnode.errors import Refused
from dimnode.limits import LIMITS
from dimnode.node.httpdoor import Account
from dimnode.store.keys import KEYS_FILE, ApiKey, Asked, KeyBook, has_keys

KEY = ApiKey("", "lab", frozenset({"submit", "read"}), ("triage", "b:1"), 10, 100, 0, 60, 4)


@pytest.fixture
def book(tmp_path: Path) -> KeyBook:
    return KeyBook(tmp_path)


def test_a_key_is_found_by_its_text_alone_and_is_nowhere_in_the_file(tmp_path: Path) -> None:
    assert not has_keys(tmp_path)
    book = KeyBook(tmp_path)
    text = book.create(KEY)
    assert has_keys(tmp_path)
    found = book.find(text)
    assert found is not None
    assert (found.name, found.scopes, found.models) == ("lab", KEY.scopes, KEY.models)
    book.close()
    secret = text.split("_", 2)[2].encode()
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret not in kept
    assert found.id.encode() in kept
    assert stat.S_IMODE((tmp_path / KEYS_FILE).stat().st_mode) == 0o600


def test_a_key_is_valid_until_it_expires_or_is_revoked(book: KeyBook) -> None:
    found = book.find(book.create(KEY))
    assert found is not None
    assert found.is_valid(99)
    assert not found.is_valid(100)
    assert book.revoke(found.id, 50).id == found.id
    again = book.all()[0]
    assert not again.is_valid(60)
    assert book.revoke("lab", 70).revoked_ms == 50  # once is once


def test_a_name_that_two_valid_keys_have_revokes_neither(book: KeyBook) -> None:
    book.create(KEY)
    book.create(KEY)
    for name in ("lab", "nobody"):
        with pytest.raises(Refused) as refused:
            book.revoke(name, 50)
        assert refused.value.complaint.code == "E-keys-01"
    assert all(not key.revoked_ms for key in book.all())


@pytest.mark.slow
@given(text=st.one_of(st.text(max_size=80), st.text("dim_0123456789abcdef", max_size=80)))
def test_no_other_text_is_a_key(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    book = KeyBook(tmp_path_factory.getbasetemp())
    real = book.create(KEY)
    assert book.find(text) is None
    assert book.find(real[:-1]) is None
    assert book.find(real + "x") is None
    assert book.find("DIM" + real[3:]) is None
    book.close()


def test_a_job_is_noted_once_with_who_asked(book: KeyBook) -> None:
    first, second = Asked(b"1", "k", "", b"d", 5), Asked(b"2", "k", "again", b"e", 6)
    for asked in (first, second, first, second):
        book.note_job(asked)
    assert book.job(b"1") == first
    assert book.repeated("k", "again") == second
    assert book.repeated("other", "again") is None
    assert book.jobs_of("k", 10) == [second, first]
    assert book.jobs_of("k", 10, before_ms=6) == [first]


def test_notes_wait_in_the_log_until_a_checkpoint_and_then_the_log_begins_again(tmp_path: Path) -> None:
    with closing(KeyBook(tmp_path)) as book:
        book.checkpoint()
        file, log = tmp_path / KEYS_FILE, tmp_path / f"{KEYS_FILE}-wal"

        def note(first: int) -> None:
            for number in range(first, first + 1000):
                book.note_job(Asked(b"%d" % number, "key", "", b"d" * 32, number))

        before = file.stat().st_size
        note(0)
        assert file.stat().st_size == before, "SQLite itself would have written the log back after 1,000 pages"
        book.checkpoint()
        assert file.stat().st_size > before
        longest = log.stat().st_size
        note(1000)
        assert log.stat().st_size <= longest * 1.5
        assert book.job(b"3") is not None and book.job(b"1999") is not None


def test_a_door_that_noted_much_makes_a_checkpoint(tmp_path: Path) -> None:
    async def main() -> None:
        with closing(KeyBook(tmp_path)) as book, trio.fail_after(10):
            book.checkpoint()
            before = (tmp_path / KEYS_FILE).stat().st_size
            account = Account(book, replace(LIMITS.http, notes_before_checkpoint=200))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(account.watch)
                for number in range(200):
                    account.note(b"%d" % number, "key", "", b"d" * 32, number)
                while (tmp_path / KEYS_FILE).stat().st_size == before:
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_file_that_cannot_be_written_now_is_a_refusal_for_who_makes_or_revokes_a_key(book: KeyBook) -> None:
    book.create(KEY)
    book._database.execute("PRAGMA query_only=ON")
    for change in (lambda: book.create(KEY), lambda: book.revoke("lab", 50)):
        with pytest.raises(Refused, match="E-store-09"):
            change()
