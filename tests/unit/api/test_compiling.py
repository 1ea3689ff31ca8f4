"""Large inputs are checked beside the loop: the same verdicts, and nobody waits for them."""

import threading

import numpy as np
import pytest
import trio
from test_given_inputs import Names

from dimnode.api import inputs
from dimnode.api.compiling import compile_aside
from dimnode.api.jobfile import compile_job, read_job
from dimnode.errors import Refused
from dimnode.limits import LIMITS
from dimnode.records.tensors import Tensor, encode_tensors

LARGE = LIMITS.http.input_in_loop_bytes_max + 1


class Watched(Names):
    """Names that note which thread asked."""

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def find_model(self, name):
        self.threads.add(threading.get_ident())
        return super().find_model(name)


def numbers(count: int, dtype: str = "float32", last: float = 1.0) -> bytes:
    values = np.ones((count, 3), dtype)
    values[-1, -1] = last
    return encode_tensors([Tensor("t", dtype, (count, 3), values.astype(np.dtype(dtype).newbyteorder("<")).tobytes())])


@pytest.mark.parametrize(("count", "aside"), [(4, False), (LARGE // 12 + 1, True)])
def test_what_is_large_is_checked_by_a_thread_and_names_are_looked_up_in_the_loop(monkeypatch, count, aside) -> None:
    checked: list[int] = []
    check = inputs._castable
    monkeypatch.setattr(inputs, "_castable", lambda *given: checked.append(threading.get_ident()) or check(*given))
    names, job = Watched(), read_job({"tasks": [{"model": "tensor"}]})
    blob = numbers(count)
    found = trio.run(compile_aside, job, names, [blob])
    assert found == compile_job(job, Names(), [blob])
    here = threading.get_ident()
    assert names.threads == {here} and (checked[0] != here) == aside


@pytest.mark.parametrize("task", [{"model": "tensor", "peer": "nobody"}, {"model": "tensor"}, {"model": "rows"}])
def test_a_large_job_is_refused_in_the_words_in_which_a_small_one_is(task) -> None:
    job = read_job({"tasks": [task]})
    with pytest.raises(Refused) as small:
        compile_job(job, Names(), [numbers(4, last=0.5)])
    with pytest.raises(Refused) as large:
        trio.run(compile_aside, job, Names(), [numbers(LARGE, last=0.5)])
    assert small.value.complaint.code == large.value.complaint.code


@pytest.mark.parametrize("bad", [0, inputs._NUMBERS_AT_ONCE - 1, inputs._NUMBERS_AT_ONCE, -1])
@pytest.mark.parametrize(("dtype", "value", "target"), [("float32", 0.5, "int8"), ("float64", 1e39, "float32")])
def test_one_number_that_does_not_fit_is_found_wherever_it_stands(bad, dtype, value, target) -> None:
    values = np.ones(inputs._NUMBERS_AT_ONCE + 7, dtype)
    whole = Tensor("t", dtype, values.shape, values.tobytes())
    values[bad] = value
    spoiled = Tensor("t", dtype, values.shape, values.tobytes())
    assert inputs._castable(whole, target) and not inputs._castable(spoiled, target)
