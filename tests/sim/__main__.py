"""`python -m tests.sim --seeds N --start S`: more universes than the tests look at; `--seed X` shows one of them."""

import argparse
import sys
from collections import Counter
from time import perf_counter

from .checks import check_receipts
from .journal import Broken
from .universe import drawn
from .world import World


def main() -> int:
    """Exit code 1 when a universe broke; its seed and the end of its trace are printed."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, help="run one seed and print its trace")
    parser.add_argument("--no-receipts", action="store_true", help="do not ask the verifier")
    options = parser.parse_args()
    seeds = range(options.start, options.start + options.seeds) if options.seed is None else [options.seed]
    broken, ends, events, began = [], Counter[str](), 0, perf_counter()
    for seed in seeds:
        world = World(drawn(seed), 400 if options.seed is None else 1_000_000)
        try:
            world.run()
            if not options.no_receipts:
                ends += check_receipts(world)
        except Broken as failure:
            broken.append(seed)
            lines = str(failure).splitlines()
            print("\n".join(lines if options.seed is not None else [*lines[:2], *lines[-25:]]), file=sys.stderr)
        events += world.events
    seconds = perf_counter() - began
    print(f"{len(seeds)} seeds, {events} events, {seconds:.1f} s; jobs ended {dict(ends)}; broken: {broken or 'none'}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
