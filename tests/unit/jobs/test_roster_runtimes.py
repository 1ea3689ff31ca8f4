"""Who is given a task by what its advert says it can run: the runtime of the model, and what its words need."""

import random
from dataclasses import replace

import pytest
from engine_stage import ME, MODEL, A, B, C, Stage, of, sent

from dimnode.consensus.selection import Need
from dimnode.consensus.standing import Standing
from dimnode.jobs.effects import Refuse, Reply
from dimnode.jobs.events import AdvertHeard, Now
from dimnode.jobs.job import walls_in, walls_wanted
from dimnode.jobs.roster import Roster
from dimnode.limits import LIMITS
from dimnode.records.ids import PeerId

NOW = Now(1.0, 1_000)
NEED = Need(MODEL, "infer")
TEXT = {MODEL: frozenset({"text"})}


def advert(
    peer: PeerId,
    *formats: str,
    holds: bool = True,
    fetch_bytes: int = 0,
    extras: tuple[str, ...] | None = (),
    words: bool = False,
) -> AdvertHeard:
    """What a peer says; without `formats` it is one of the last version that did not say."""
    models = {MODEL: "coreml"} if holds else {}
    said = frozenset(formats) if formats else None
    has = None if extras is None else frozenset(extras)
    return AdvertHeard(
        peer, models, frozenset(), 4, dict.fromkeys(models, 10), said, fetch_bytes, has, TEXT if words else {}
    )


def roster(*adverts: AdvertHeard) -> Roster:
    made = Roster(ME, LIMITS, Standing(), random.Random(1))
    for said in adverts:
        made.hear(said)
        made.link(said.peer, True)
    return made


def chosen(made: Roster) -> set[PeerId | None]:
    return {made.pick(NEED, NOW) for _ in range(30)}


def test_a_task_goes_to_who_runs_its_format_though_others_hold_the_model() -> None:
    made = roster(advert(A, "onnx"), advert(B, "onnx", "coreml"), advert(C, "torch"))
    assert chosen(made) == {B}
    assert (made.usable(NEED, NOW), made.missing(NEED)) == (1, ("", False))


def test_a_peer_that_does_not_say_what_it_runs_is_taken_at_its_offer() -> None:
    made = roster(advert(A), advert(B, "onnx"))
    assert chosen(made) == {A}
    made = roster(advert(A, "coreml", extras=None, words=True))
    assert chosen(made) == {A}


def test_a_model_with_words_goes_to_who_has_what_they_need() -> None:
    made = roster(advert(A, "coreml", extras=("image",), words=True), advert(B, "coreml", extras=("text",), words=True))
    assert chosen(made) == {B}


def test_who_cannot_run_a_model_does_not_fetch_it_and_hands_its_files_to_who_can() -> None:
    holder = advert(A, "onnx", words=True)
    blind = advert(B, "coreml", holds=False, fetch_bytes=100)
    able = advert(C, "coreml", holds=False, fetch_bytes=100, extras=("text",))
    assert chosen(roster(holder, blind)) == {None}
    assert chosen(roster(holder, blind, able)) == {C}


def test_what_is_missing_is_named_only_when_that_is_the_reason() -> None:
    assert roster(advert(A, "onnx"), advert(B, "torch")).missing(NEED) == ("coreml", False)
    assert roster(advert(A, "onnx"), advert(B, "coreml", holds=False)).missing(NEED) == ("coreml", True)
    assert roster(advert(A, "coreml", words=True)).missing(NEED) == ("text", False)
    assert roster().missing(NEED) == ("", False)
    pinned = Need(MODEL, "infer", pinned=A)
    assert roster(advert(A, "onnx"), advert(B, "coreml")).missing(pinned) == ("coreml", True)


def test_an_advert_that_gains_a_runtime_gains_the_tasks_that_wait() -> None:
    made = roster(advert(A, "onnx"))
    assert chosen(made) == {None}
    made.hear(advert(A, "onnx", "coreml"))
    assert chosen(made) == {A}


@pytest.mark.parametrize(
    ("others", "hint"),
    [
        ([], "pip install 'dimnode[coreml]' on one of them, then restart it"),
        ([advert(B, "coreml", holds=False)], "on one of them: dim models pull"),
    ],
)
def test_a_job_whose_model_nobody_can_run_is_refused_with_what_to_install(others: list[AdvertHeard], hint: str) -> None:
    stage = Stage([])
    for said in [advert(A, "onnx"), *others]:
        stage.link(said.peer)
        stage.do(said)
    (no,) = of(Refuse, stage.submit(tasks=[{"op": "infer", "model": MODEL}]))
    assert (no.code, no.hint) == ("E-jobs-13", hint)
    assert "coreml" in no.what
    stage.link(C)
    stage.do(advert(C, "coreml"))
    (lease,) = sent("lease", stage.submit(tasks=[{"op": "infer", "model": MODEL}]))
    assert lease.peer == C


WALLED = {"tasks": [{"op": "infer", "model": MODEL}], "x_sandbox": ["landlock", "seccomp"]}


def test_a_named_peer_that_lacks_an_extra_is_said_to_lack_it_whatever_the_others_have() -> None:
    stage = Stage([])
    for said in (advert(A, "coreml", words=True), advert(B, "coreml", extras=("text",), words=True)):
        stage.link(said.peer)
        stage.do(said)
    (no,) = of(Refuse, stage.submit(tasks=[{"op": "infer", "model": MODEL, "peer": A}]))
    assert (no.code, "names for step 1, lacks text" in no.what) == ("E-jobs-13", True)
    assert no.hint == "name no peer, or there: pip install 'dimnode[text]', then restart it"


@pytest.mark.parametrize(("peer", "hint"), [(ME, "dim drain --off"), (A, "there: dim drain --off")])
def test_a_model_that_only_drained_nodes_have_is_said_to_wait_for_them(peer: PeerId, hint: str) -> None:
    stage = Stage([])
    stage.link(peer)
    own = {"models": {}, "resting": frozenset({MODEL})} if peer == ME else {}  # what a node says of itself
    stage.do(replace(advert(peer, "coreml"), slots=0, **own))
    (no,) = of(Refuse, stage.submit(tasks=[{"op": "infer", "model": MODEL}]))
    assert (no.code, no.hint) == ("E-jobs-04", hint)


def walled(peer: PeerId, sandbox: str) -> AdvertHeard:
    return replace(advert(peer, "coreml"), walls=walls_in(sandbox))


def test_a_job_that_insists_on_a_sandbox_goes_to_who_has_every_layer_of_it() -> None:
    stage = Stage([])
    for peer, sandbox in ((A, "none"), (B, "seccomp+rlimits"), (C, "landlock+seccomp (leaks: fork)")):
        stage.link(peer)
        stage.do(walled(peer, sandbox))
    (no,) = of(Refuse, stage.submit(**WALLED))
    assert (no.code, no.cause) == ("E-jobs-14", "it asks for landlock, seccomp")
    assert sent("lease", stage.submit(tasks=WALLED["tasks"])), "without insisting anybody will do"
    stage.do(walled(C, "landlock+seccomp+rlimits+netns"))
    (lease,) = sent("lease", stage.submit(**WALLED))
    assert lease.peer == C


@pytest.mark.parametrize(
    ("walls", "taken"),
    [(frozenset({"landlock", "seccomp", "netns"}), True), (frozenset({"seccomp"}), False), (None, True)],
)
def test_an_answer_that_was_run_without_the_sandbox_is_not_accepted(walls: frozenset[str] | None, taken: bool) -> None:
    stage = Stage([])
    stage.link(A)
    stage.do(walled(A, "landlock+seccomp"))
    (lease,) = sent("lease", stage.submit(**WALLED))
    effects = stage.do(replace(stage.answer(lease), walls=walls))
    assert bool(of(Reply, effects) and of(Reply, effects)[0].status == "ok") == taken


@pytest.mark.parametrize("said", ["landlock", [1], {"landlock": 1}, [["landlock"]]])
def test_a_wish_for_a_sandbox_that_is_no_list_of_words_is_met_by_nobody(said: object) -> None:
    assert walls_wanted({"x_sandbox": said}) == {"?"}
    assert walls_wanted({}) == walls_wanted({"x_sandbox": []}) == frozenset()


def test_what_a_sandbox_says_of_itself_is_its_layers_and_with_a_leak_none() -> None:
    assert walls_in("landlock+seccomp") == {"landlock", "seccomp"}
    assert walls_in("") == walls_in("none") == walls_in("landlock+seccomp (leaks: fork)") == frozenset()
