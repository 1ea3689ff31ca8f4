"""The vault: bytes stay as long as somebody holds them, and no longer."""

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dimnode.store.vault import Vault

CONTENTS = [b"", b"a", b"bb", b"ccc" * 10]


class Holding(RuleBasedStateMachine):
    """Any number of holders, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.vault, self.holders = Vault(), Counter()

    @rule(content=st.sampled_from(CONTENTS))
    def somebody_holds(self, content: bytes) -> None:
        self.vault.hold(b"id" + content, content)
        self.holders[content] += 1

    @precondition(lambda self: self.holders)
    @rule(pick=st.randoms())
    def somebody_lets_go(self, pick) -> None:
        content = pick.choice(sorted(self.holders))
        self.vault.release(b"id" + content)
        self.holders -= Counter([content])

    @invariant()
    def exactly_what_is_held_is_there(self) -> None:
        assert len(self.vault) == len(self.holders)
        assert self.vault.bytes_held == sum(map(len, self.holders))
        for content in CONTENTS:
            assert self.vault.get(b"id" + content) == (content if content in self.holders else None)

    def teardown(self) -> None:
        for content in self.holders.elements():
            self.vault.release(b"id" + content)
        assert len(self.vault) == self.vault.bytes_held == 0


TestHolding = Holding.TestCase
TestHolding.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


def test_releasing_what_nobody_holds_is_our_own_bug() -> None:
    vault = Vault()
    vault.hold(b"id", b"x")
    vault.release(b"id")
    with pytest.raises(KeyError):
        vault.release(b"id")
