"""What models cost is kept over a restart, by kind of device, and a bad file costs no more than that."""

from dataclasses import replace
from pathlib import Path

import pytest

from dimnode.limits import LIMITS
from dimnode.store import costs
from dimnode.store.costs import COSTS_FILE, CostBook, MeasuredModel

HERE, THERE = "linux/x86_64/avx2/cpu/2", "darwin/arm64/neon/cpu/8"


def measured(name: str) -> MeasuredModel:
    return MeasuredModel(name, (0.5, 0.1, 3), ((0, 0.01, 0.001, 8, 1.0), (3, 0.05, 0.01, 2, 7.5)), 1000, ((3, 2000),))


def test_what_was_kept_is_found_again_and_nothing_of_another_device(tmp_path: Path) -> None:
    assert CostBook(tmp_path, HERE).models() == ()
    CostBook(tmp_path, HERE).keep([measured("a"), measured("b")])
    CostBook(tmp_path, THERE).keep([measured("c")])
    assert CostBook(tmp_path, HERE).models() == (measured("a"), measured("b"))
    assert CostBook(tmp_path, THERE).models() == (measured("c"),)


def test_a_run_of_very_many_empty_rows_costs_no_other_measurement(tmp_path: Path) -> None:
    odd = MeasuredModel("odd", (0.5, 0.1, 3), ((23, 0.01, 0.001, 1, 2.0**31 - 1),), 1000, ())
    CostBook(tmp_path, "here").keep([measured("m"), odd])
    assert CostBook(tmp_path, "here").models() == (measured("m"), odd)


def test_only_the_models_used_last_are_kept(tmp_path: Path) -> None:
    most = LIMITS.exec.models_estimated_max
    CostBook(tmp_path, HERE).keep([measured(str(number)) for number in range(most + 5)])
    found = CostBook(tmp_path, HERE).models()
    assert [row.model for row in found] == [str(number) for number in range(5, most + 5)]


def test_nothing_new_writes_nothing(tmp_path: Path) -> None:
    book = CostBook(tmp_path, HERE)
    book.keep([measured("a")])
    (tmp_path / COSTS_FILE).unlink()
    book.keep([measured("a")])
    assert not (tmp_path / COSTS_FILE).exists()


def test_the_file_has_a_bound_and_other_devices_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "LIMITS", replace(LIMITS, exec=replace(LIMITS.exec, costs_file_bytes_max=2000)))
    CostBook(tmp_path, THERE).keep([measured(str(number)) for number in range(10)])
    assert CostBook(tmp_path, THERE).models()[-1].model == "9"
    CostBook(tmp_path, HERE).keep([measured(str(number)) for number in range(40)])
    assert (tmp_path / COSTS_FILE).stat().st_size <= 2000
    assert CostBook(tmp_path, THERE).models() == ()
    assert CostBook(tmp_path, HERE).models()[-1].model == "39"


@pytest.mark.parametrize(
    "raw",
    [b"{", b"[]", b'{"v":2}', b'{"devices":{"x":[{"model":1}]}}', b'{"devices":{"d":[{"model":"m","base_bytes":-1}]}}'],
)
def test_a_damaged_file_costs_the_measurements_and_not_the_node(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / COSTS_FILE).write_bytes(raw)
    book = CostBook(tmp_path, HERE)
    assert book.models() == ()
    book.keep([measured("a")])
    assert CostBook(tmp_path, HERE).models() == (measured("a"),)


def test_where_nothing_can_be_written_the_node_goes_on(tmp_path: Path) -> None:
    book = CostBook(tmp_path / "gone", HERE)
    book.keep([measured("a")])
    assert book.models() == (measured("a"),)
