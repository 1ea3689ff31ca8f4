"""A laboratory of network namespaces: cables that can be cut, NAT boxes and LANs, none of it on the host's network.

Rule: every namespace carries the laboratory's prefix and nothing else is ever touched: each cable runs between two of
its namespaces, so the host's interfaces, addresses and routes stay as they are, and no packet can leave. What a
crashed run left behind is swept by the next one, which knows it by the prefix and the number of a dead process in it.

    with open_lab() as lab:
        street = lab.lan("44.1.1.0/24")
        home = lab.nat(street, "192.168.21.0/24")
        relay, laptop = lab.place(street), lab.place(home)
        node = laptop.start([sys.executable, "-m", "dimnode.cli.main", "up"], log=tmp_path / "laptop.log")
        laptop.cable.cut()

Root only; `lab_missing()` gives the reason why there is none here.
"""

import ipaddress
import os
import re
import secrets
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.e2e.harness import NOISE

PREFIX = "dimlab"
NAMESPACES_MAX = 48
PROCESSES_MAX = 48
COMMAND_SECONDS_MAX = 10.0 * NOISE
LAB_SECONDS_MAX = 300.0
_NAME = re.compile(rf"{PREFIX}-(\d+)-[0-9a-f]{{6}}-\w+")

_NAT_RULES = """
table ip lab {{
  chain post {{ type nat hook postrouting priority 100; oifname "out" masquerade {ports}; }}
  chain input {{ type filter hook input priority 0; iifname "out" ct state != {{ established, related }} drop; }}
  chain forward {{ type filter hook forward priority 0; iifname "out" ct state != {{ established, related }} drop; }}
}}
"""


@cache
def lab_missing(nat: bool = False) -> str:
    """Why there can be no laboratory here; "" when there can. With `nat` also what NAT boxes need."""
    if os.name != "posix" or os.uname().sysname != "Linux":
        return "network namespaces exist on Linux only"
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program, package in (("ip", "iproute2"), ("setpriv", "util-linux"), *((("nft", "nftables"),) if nat else ())):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt-get install {package})"
    probe = f"{PREFIX}-{os.getpid()}-{secrets.token_hex(3)}-probe"
    try:
        _command("ip", "netns", "add", probe)
        if nat:
            _command("ip", "netns", "exec", probe, "nft", "-f", "-", text=_NAT_RULES.format(ports=""))
    except LabError as error:
        return f"this system allows no {'NAT in ' if nat else ''}network namespaces: {error}"
    finally:
        with suppress(LabError):
            _command("ip", "netns", "del", probe)
    return ""


class LabError(Exception):
    """A command of the laboratory failed; its text says which and why."""


@dataclass(slots=True)
class Cable:
    """A veth pair. Cut at the far end: the near side sees a dead carrier, keeps address and routes, gets no answer."""

    far_namespace: str
    far_end: str

    def cut(self) -> None:
        """Nothing passes in either direction, and nobody is told."""
        _command("ip", "-n", self.far_namespace, "link", "set", self.far_end, "down")

    def mend(self) -> None:
        """As before."""
        _command("ip", "-n", self.far_namespace, "link", "set", self.far_end, "up")


@dataclass(slots=True)
class Lan:
    """A bridge in a namespace of its own. `gateway` is the address of the NAT box in front of it, if any."""

    namespace: str
    network: ipaddress.IPv4Network
    gateway: str = ""
    outside: str = ""
    """The address of the NAT box on the other side."""
    box: str = ""
    taken: int = 0

    def block(self, address: str) -> None:
        """The NAT box swallows what goes to `address`."""
        _ip(self.box, f"route add blackhole {address}/32")

    def unblock(self, address: str) -> None:
        """As before."""
        _ip(self.box, f"route del blackhole {address}/32")

    def next_address(self) -> str:
        """A free address; the first one is the gateway's."""
        self.taken += 1
        return str(self.network[self.taken])


@dataclass(slots=True)
class Place:
    """A namespace where programs run: one machine with one address on one LAN."""

    lab: "Lab"
    namespace: str
    address: str
    cable: Cable

    def run(self, *arguments: str, seconds_max: float = COMMAND_SECONDS_MAX) -> str:
        """Run a command here to its end; its standard output. Raises `LabError`."""
        return _command("ip", "netns", "exec", self.namespace, *arguments, seconds_max=seconds_max)

    def start(
        self, arguments: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program here; it ends with the laboratory, or with this process. Output is appended to `log`.

        The number of the Popen is the program's own: signals (also SIGSTOP) reach it. Call from the main thread: the
        kernel ends the program when the thread that started it ends.
        """
        return self.lab.start(self.namespace, arguments, log, environment)


@dataclass(slots=True)
class Lab:
    """What one run has built. Made by `open_lab`."""

    prefix: str
    namespaces: list[str] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    closed: bool = False

    def lan(self, network: str) -> Lan:
        """A LAN: everybody on it hears everybody, multicast as well."""
        namespace = self._namespace("lan")
        _ip(namespace, "link add bridge type bridge", "link set bridge up")
        return Lan(namespace, ipaddress.IPv4Network(network))

    def place(self, lan: Lan) -> Place:
        """A machine on `lan`; behind a NAT box that is its way to everywhere else."""
        namespace, address = self._namespace("at"), lan.next_address()
        cable = self._plug(namespace, "eth0", lan, address)
        if lan.gateway:
            _ip(namespace, f"route add default via {lan.gateway}")
        return Place(self, namespace, address, cable)

    def nat(self, outside: Lan, network: str, *, random_ports: bool = False) -> Lan:
        """A LAN behind a NAT box on `outside`. It lets nobody in; it keeps a connection's port, or picks any."""
        box = self._namespace("nat")
        inside = self.lan(network)
        inside.gateway = inside.next_address()
        self._plug(box, "in", inside, inside.gateway)
        inside.box, inside.outside = box, outside.next_address()
        self._plug(box, "out", outside, inside.outside)
        _command("ip", "netns", "exec", box, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        rules = _NAT_RULES.format(ports="random" if random_ports else "")
        _command("ip", "netns", "exec", box, "nft", "-f", "-", text=rules)
        return inside

    def join(self, one: Lan, other: Lan) -> Cable:
        """A cable between two LANs of the same network: cut it to part the swarm."""
        far = f"t{len(os.listdir('/run/netns'))}{secrets.token_hex(2)}"
        _ip(one.namespace, f"link add {far} type veth peer name {far} netns {other.namespace}")
        for lan in (one, other):
            _ip(lan.namespace, f"link set {far} master bridge up")
        return Cable(one.namespace, far)

    def start(
        self, namespace: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None
    ) -> subprocess.Popen[bytes]:
        """See `Place.start`."""
        if self.closed or len(self.processes) >= PROCESSES_MAX:
            raise LabError("the laboratory is closed or full")
        whole = ["ip", "netns", "exec", namespace, "setpriv", "--pdeathsig", "KILL", *arguments]
        with log.open("ab") as output:
            process = subprocess.Popen(
                whole,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
            )
        self.processes.append(process)
        return process

    def close(self) -> None:
        """End what was started, then take everything down. Idempotent."""
        self.closed = True
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
                process.send_signal(signal.SIGCONT)
        for process in self.processes:
            try:
                process.wait(3.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        _remove(self.namespaces)
        self.namespaces.clear()

    def _namespace(self, what: str) -> str:
        if self.closed or len(self.namespaces) >= NAMESPACES_MAX:
            raise LabError("the laboratory is closed or full")
        name = f"{self.prefix}-{what}{len(self.namespaces)}"
        self.namespaces.append(name)  # before it exists, so that it is never forgotten
        _command("ip", "netns", "add", name)
        _ip(name, "link set lo up")
        return name

    def _plug(self, namespace: str, interface: str, lan: Lan, address: str) -> Cable:
        far = f"p{lan.taken}"
        _ip(namespace, f"link add {interface} type veth peer name {far} netns {lan.namespace}")
        _ip(lan.namespace, f"link set {far} master bridge up")
        plain = f"{address}/{lan.network.prefixlen}"
        _ip(namespace, f"addr add {plain} dev {interface}", f"link set {interface} up")
        return Cable(lan.namespace, far)


@contextmanager
def open_lab(seconds_max: float = LAB_SECONDS_MAX) -> Iterator[Lab]:
    """A laboratory for the block; it closes itself after `seconds_max` even if the block hangs, on a loaded machine
    after as many times that."""
    sweep()
    lab = Lab(f"{PREFIX}-{os.getpid()}-{secrets.token_hex(3)}")
    fuse = threading.Timer(seconds_max * NOISE, lab.close)
    fuse.daemon = True
    fuse.start()
    try:
        yield lab
    finally:
        fuse.cancel()
        lab.close()


def sweep() -> int:
    """Take down what runs of dead processes left behind; the number of namespaces."""
    left = [
        name
        for name in (os.listdir("/run/netns") if os.path.isdir("/run/netns") else [])
        if (match := _NAME.fullmatch(name)) and not os.path.exists(f"/proc/{match[1]}")
    ]
    _remove(left)
    return len(left)


def _remove(namespaces: Sequence[str]) -> None:
    """Kill what still runs inside, then delete; whatever is gone already is no error."""
    for name in namespaces:
        with suppress(LabError, ProcessLookupError, ValueError):
            for pid in _command("ip", "netns", "pids", name).split():
                os.kill(int(pid), signal.SIGKILL)
        with suppress(LabError):
            _command("ip", "netns", "del", name)


def _ip(namespace: str, *lines: str) -> None:
    _command("ip", "-n", namespace, "-batch", "-", text="\n".join(lines) + "\n")


def _command(*arguments: str, text: str = "", seconds_max: float = COMMAND_SECONDS_MAX) -> str:
    try:
        done = subprocess.run(arguments, input=text.encode(), capture_output=True, timeout=seconds_max, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(str(error)) from None
    if done.returncode:
        raise LabError(f"{' '.join(arguments)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()
