"""Why `dim connect` came to nothing, in words that name the likely cause."""

import pytest

from dimnode.node.connecting import not_reached

ADDRESS = "/ip4/192.0.2.7/tcp/4710/p2p/12D3KooW"


@pytest.mark.parametrize(
    ("reason", "code", "cause"),
    [
        ("E-swarm-16: this node is in the open swarm; said by …x", "E-swarm-16", "it says: this node is in the open"),
        ("E-swarm-30: the other side does not use this swarm's pre-shared key", "E-swarm-30", "pre-shared key"),
        ("another answer than the one proposed", "E-p2p-01", "a swarm with a pre-shared key"),
    ],
)
def test_between_two_swarms_the_swarm_is_named_and_not_the_network(reason: str, code: str, cause: str) -> None:
    said = not_reached(ADDRESS, reason).complaint
    assert (said.code, cause in said.cause, "dim swarm show" in said.hint) == (code, True, True)


def test_a_broken_network_is_a_matter_for_the_doctor() -> None:
    said = not_reached(ADDRESS, "connection refused").complaint
    assert (said.code, said.cause, said.hint) == ("E-p2p-01", "connection refused", "dim doctor")
