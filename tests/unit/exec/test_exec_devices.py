"""On what a runtime computes: the operator's word is kept or refused, and `auto` takes the best that works."""

import errno
import subprocess
import sys
from dataclasses import dataclass

import pytest

from dimnode.config import Config
from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.runtimes.devices import Device
from dimnode.exec.runtimes.onnx import PROVIDERS, Provider
from dimnode.exec.runtimes.torch import TorchDevice
from dimnode.node.starting import devices_of


@dataclass
class Library:
    """As onnxruntime and torch's devices answer."""

    providers: tuple[str, ...] = ()
    there: bool = False

    def get_available_providers(self) -> list[str]:
        return [PROVIDERS[word] for word in self.providers]

    def is_available(self) -> bool:
        return self.there


@pytest.mark.parametrize(
    ("asked", "there", "chosen"),
    [
        ("auto", ("cuda", "cpu"), "cuda"),
        ("auto", ("coreml", "cpu"), "cpu"),
        ("auto", ("cpu",), "cpu"),
        ("cpu", ("cuda", "cpu"), "cpu"),
        ("coreml", ("coreml", "cpu"), "coreml"),
        ("cuda", ("cuda", "cpu"), "cuda"),
    ],
)
def test_onnx_takes_the_provider_that_was_asked_for_or_the_best(
    asked: str, there: tuple[str, ...], chosen: str
) -> None:
    device = Provider()
    device.choose_from(asked, Library(there))
    assert device.word == chosen
    assert device.accelerated == (chosen != "cpu")


@pytest.mark.parametrize(
    ("asked", "cuda", "mps", "chosen"),
    [
        ("auto", True, False, "cuda"),
        ("auto", False, True, "mps"),
        ("auto", False, False, "cpu"),
        ("cpu", True, True, "cpu"),
        ("mps", True, True, "mps"),
    ],
)
def test_torch_takes_the_device_that_was_asked_for_or_the_best(asked: str, cuda: bool, mps: bool, chosen: str) -> None:
    device = TorchDevice()
    device.choose_from(asked, Library(there=cuda), Library(there=mps))
    assert device.word == chosen


def test_a_device_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(RunFailed, match="cuda, and there is coreml, cpu") as caught:
        Provider().choose_from("cuda", Library(("coreml", "cpu")))
    assert caught.value.complaint.code == orders.NO_DEVICE
    assert "auto" in caught.value.complaint.hint
    for asked, device in (("mps", TorchDevice()), ("cuda", Device())):
        with pytest.raises(RunFailed, match=asked):
            device.choose(asked) if type(device) is Device else device.choose_from(asked, Library(), Library())


def test_the_onnxruntime_of_this_machine_has_no_accelerator() -> None:
    device = Provider()
    device.choose("auto")
    assert device.word == "cpu"
    with pytest.raises(RunFailed):
        device.choose("coreml")


def test_models_of_transformers_compute_on_what_torch_does() -> None:
    assert devices_of(Config(torch_device="mps")) == {"onnx": "auto", "torch": "mps", "hf": "mps"}


# A library that claims CUDA, as one does whose driver is missing: everything but the claim is real.
CLAIMS = """
import socket, sys
from dimnode.errors import RunFailed
from dimnode.exec import zygote
from dimnode.exec.runtimes import onnx
from dimnode.limits import ExecLimits

class Claims:
    def get_available_providers(self):
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

onnx.Provider.choose = lambda self, asked: self.choose_from(asked, Claims())
ours, _ = socket.socketpair()
started = zygote.Zygote(ours, onnx, ExecLimits(), sys.argv[1])
assert onnx.DEVICE.word == "cuda"
try:
    traits, layers, leaks = started.prove()
except RunFailed as fault:
    print("refused", fault.complaint.code, fault.complaint.what, sep="|")
else:
    print(traits["accelerator"], sorted(leaks), started.note, sep="|")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it forks")
@pytest.mark.parametrize(("asked", "said"), [("auto", ["cpu", "[]"]), ("cuda", ["refused", orders.NO_DEVICE])])
def test_a_device_that_does_not_compute_gives_way_to_the_processor_unless_it_was_asked_for(
    asked: str, said: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLAIMS, asked], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    *found, why = done.stdout.strip().split("|")
    assert found == said
    assert "cuda does not compute behind the walls" in why and "could not start its provider" in why


TALKS = """
import errno, fcntl, os, sys
from dimnode.exec import sandbox
filter = sandbox.build_filter(device=sys.argv[1] == "device")
file = os.open(os.devnull, os.O_RDONLY)
filter.load()
try:
    fcntl.ioctl(file, 0x5413, bytes(8))
except OSError as error:
    os.write(1, str(error.errno).encode())
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
@pytest.mark.parametrize(("kind", "number"), [("none", errno.EPERM), ("device", errno.ENOTTY)])
def test_only_workers_with_a_device_may_talk_to_a_driver(kind: str, number: int) -> None:
    done = subprocess.run([sys.executable, "-c", TALKS, kind], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == str(number), done.stderr
