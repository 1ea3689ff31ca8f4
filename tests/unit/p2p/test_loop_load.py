"""How busy the loop is: measured over whole whiles, and said until the next one is over."""

from dimnode.p2p.loop_load import LoopLoad


def test_the_share_is_that_of_the_last_while_that_is_over() -> None:
    cpu = 5.0
    load = LoopLoad(0.5, lambda: cpu)
    assert load.share(100.0) == 0.0
    cpu += 0.375
    assert load.share(100.25) == 0.0, "the first while is not over"
    assert load.share(100.5) == 0.75
    cpu += 0.125
    assert load.share(100.75) == 0.75
    assert load.share(101.5) == 0.125


def test_it_is_the_calling_thread_that_is_measured() -> None:
    load, rounds = LoopLoad(0.0), 0
    load.share(0.0)
    while not load.share(1.0 + rounds):  # each round counts as a second: some of it was spent here
        rounds += 1
        assert rounds < 1_000_000
