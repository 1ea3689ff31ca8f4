"""A stock libp2p peer with bad intentions against a real node: `python -m tests.fuzz --seconds N`."""
