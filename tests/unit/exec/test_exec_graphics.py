"""Memory of a graphics processor is the driver's figure, and absent where there is none."""

from collections.abc import Iterator
from typing import Any

import pytest

from dimnode.exec import desk, memory


class Nvml:
    """NVML, as far as it is asked: each call gives 0, and writes into what it was given."""

    def __init__(self, *, broken: bool = False) -> None:
        self._status = 999 if broken else 0

    def nvmlInit_v2(self) -> int:  # noqa: N802 - the library's own names
        return self._status

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, device: Any) -> int:  # noqa: N802
        assert index == 0 and device is not None
        return 0

    def nvmlDeviceGetName(self, _: Any, name: Any, size: int) -> int:  # noqa: N802
        name.value = b"A card"[:size]
        return 0

    def nvmlDeviceGetMemoryInfo(self, _: Any, said: Any) -> int:  # noqa: N802
        said[0], said[1], said[2] = 24_000, 23_000, 1_000
        return 0


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    memory.graphics.cache_clear()
    yield
    memory.graphics.cache_clear()


def test_a_device_is_named_with_its_memory_and_a_run_on_it_is_charged_what_is_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: Nvml())
    monkeypatch.setattr("sys.platform", "linux")
    found = memory.graphics()
    assert (found["kind"], found["name"], found["memory_bytes"]) == ("cuda", "A card", 24_000)
    assert memory.graphics_used_bytes() == 1_000
    assert desk._gpu_bytes("cuda", 7) == 1_000
    assert desk._gpu_bytes("cpu", 7) == 0


def no_driver(name: str) -> Any:
    raise OSError(name)


@pytest.mark.parametrize("library", [no_driver, lambda name: Nvml(broken=True)])
def test_without_a_driver_that_answers_there_is_none(monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    monkeypatch.setattr("ctypes.CDLL", library)
    monkeypatch.setattr("sys.platform", "linux")
    assert memory.graphics()["kind"] == "none"
    assert memory.graphics_used_bytes() is None
    assert desk._gpu_bytes("cuda", 7) == 0


def test_what_runs_on_apples_graphics_takes_the_machines_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert memory.graphics()["kind"] == "mps"
    assert memory.graphics_used_bytes() is None
    assert desk._gpu_bytes("mps", 7) == 7
