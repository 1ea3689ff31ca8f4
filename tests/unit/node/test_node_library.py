"""The library: models and cabinets by name; what a person gets wrong is refused by name, never a crash."""

import errno
import hashlib
import os
import resource
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import trio

from dimnode.errors import DimError, Refused
from dimnode.limits import LIMITS
from dimnode.node.library import Library, pin_of
from dimnode.node.model_card import ModelCard, PriceCard, card_of
from dimnode.node.model_files import CARD, SourceFile, gather
from dimnode.records.envelope import SigningKey, seal
from dimnode.records.ids import blob_cid, cid_text, peer_text
from dimnode.records.kinds import OPEN_SWARM_ID, compose, open_record
from dimnode.records.manifest import Manifest
from dimnode.store.blobs import BlobStore
from dimnode.store.home import model_file, prepare_home
from dimnode.store.journal import Journal

KEY, OTHER, THIRD = (SigningKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
POLICY = {"operations": ["statistics"], "submitters": "any", "models": "any"}


@pytest.fixture
def journal(tmp_path):
    prepare_home(tmp_path / "home")
    with Journal(tmp_path / "home" / "j.db") as opened:
        yield opened


@pytest.fixture
def blobs(tmp_path, journal):
    with BlobStore(tmp_path / "home", 1 << 30) as opened:
        yield opened


@pytest.fixture
def library(tmp_path, journal, blobs) -> Library:
    return Library(tmp_path / "home", KEY, OPEN_SWARM_ID, journal, blobs)


def again(tmp_path, journal) -> Library:
    with BlobStore(tmp_path / "home", 1 << 30) as blobs:
        return Library(tmp_path / "home", KEY, OPEN_SWARM_ID, journal, blobs)


@pytest.fixture
def model(tmp_path) -> Path:
    (tmp_path / "m.onnx").write_bytes(b"a model")
    return tmp_path / "m.onnx"


def add(library: Library, source: Path, at_ms: int = 1, **card):
    return trio.run(library.add_model, ModelCard(**({"name": "iris"} | card)), source, at_ms)


def add_cabinet(library: Library, source: Path, name="patients", label="", exclude=(), policy=POLICY):
    return trio.run(library.cabinets.add, name, source, label, list(exclude), policy, 1)


def refused(call, *arguments, **named) -> str:
    with pytest.raises(DimError) as caught:
        call(*arguments, **named)
    assert caught.value.complaint.what
    return caught.value.complaint.code


def heard(key: SigningKey, name: str = "iris", version: str = "1.0.0", at_ms: int = 1):
    body = {"name": name, "version": version, "format": "onnx", "files": [["m", blob_cid(b"m"), 1]], "inputs": []}
    body |= {"outputs": [], "labels": [], "licence": "", "origin": "trained", "access": "public"}
    _, payload = compose("manifest", {"net": OPEN_SWARM_ID, "by": key.peer, "at_ms": at_ms}, body)
    return open_record(seal(key, "manifest", payload))


def test_a_model_is_copied_under_its_digest_and_found_after_a_restart(tmp_path, journal, library, model) -> None:
    record = add(library, model)
    model.unlink()
    found = again(tmp_path, journal)
    assert {path: place.read_bytes() for path, place in found.models[record.id].files.items()} == {"m.onnx": b"a model"}
    assert found.registry.find("iris").envelope == record.envelope
    assert Manifest.of(record).main.root == blob_cid(b"a model")
    assert list(library.blobs.pins(blob_cid(b"a model")).values()) == [[f"model {cid_text(record.id)}"]]


def test_the_same_card_and_file_added_twice_is_the_same_model(library, model) -> None:
    assert add(library, model, 1).id == add(library, model, 2).id
    assert add(library, model, 3, version="1.0.1").id != add(library, model, 4).id
    assert len(library.models) == 2


def test_a_strangers_manifest_that_says_the_same_is_not_mine_to_lose(tmp_path, journal, blobs, library, model) -> None:
    theirs = add(Library(tmp_path / "home", OTHER, OPEN_SWARM_ID, journal, blobs), model)
    library.registry.hear(theirs, OTHER.peer)
    mine = add(library, model)
    assert (mine.by, theirs.by) == (KEY.peer, OTHER.peer) and add(library, model, 2) == mine
    common = {"net": OPEN_SWARM_ID, "by": OTHER.peer, "at_ms": 3}
    _, back = compose("withdraw", common, {"subject": theirs.id, "reason": "mine!"})
    library.registry.hear_notice(open_record(seal(OTHER, "withdraw", back)), OTHER.peer)
    assert library.usable() == [mine.id] and library.registry.find("iris", library.models) == mine


@pytest.mark.parametrize(("access", "given"), [("public", True), ("restricted", False), ("private", False)])
def test_what_lies_beside_the_weights_of_a_public_model_is_for_everybody(tmp_path, library, access, given) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"weights")
    (folder / "tokenizer.json").write_bytes(b'{"model": {}}')
    said = Manifest.of(add(library, folder, access=access))
    beside = next(file for file in said.files if file != said.main)
    part = library.small_file(beside.root)
    assert (part is not None) == given and library.small_file(said.main.root) is None
    if part is not None:
        assert [part(0, 5), part(5, 100), part(13, 5)] == [b'{"mod', b'el": {}}', b""]


def test_the_same_card_added_twice_at_once_is_the_same_model(library, model) -> None:
    async def both() -> None:
        async with trio.open_nursery() as nursery:
            for at_ms in (1, 2, 3):
                nursery.start_soon(library.add_model, ModelCard(name="iris"), model, at_ms)

    trio.run(both)
    assert len(library.models) == 1


def test_a_model_is_found_by_name_version_publisher_and_id(library) -> None:
    old, new, other = heard(OTHER, version="1.9.0"), heard(OTHER, version="1.10.0"), heard(THIRD, "else")
    for record in (old, new, other):
        library.registry.hear(record, OTHER.peer)
    assert library.registry.find("iris") == new
    assert library.registry.find("iris:1.9.0") == old
    assert library.registry.find(f"{peer_text(OTHER.peer)}/iris:1.9.0") == old
    assert library.registry.find(f"{peer_text(OTHER.peer)}/iris") == new
    assert library.registry.find(cid_text(old.id)) == old
    for wrong in ("else:9", f"{peer_text(THIRD.peer)}/iris", "", "/", ":", "b", cid_text(old.id)[:-1], "x/iris"):
        assert refused(library.registry.find, wrong) == "E-models-01"


def test_an_id_means_its_manifest_and_no_model_that_is_called_by_it(library) -> None:
    real = heard(OTHER)
    spoof = heard(THIRD, cid_text(real.id))
    library.registry.hear(spoof, THIRD.peer)
    assert refused(library.registry.find, cid_text(real.id)) == "E-models-01"
    library.registry.hear(real, OTHER.peer)
    assert library.registry.find(cid_text(real.id)) == real
    assert library.registry.find(cid_text(spoof.id)) == spoof


def test_a_name_that_several_publish_is_refused_until_one_is_named(library) -> None:
    mine, theirs = heard(OTHER), heard(THIRD)
    library.registry.hear(mine, OTHER.peer)
    library.registry.hear(theirs, OTHER.peer)
    with pytest.raises(Refused) as caught:
        library.registry.find("iris:1.0.0")
    assert caught.value.complaint.code == "E-models-02"
    assert f"{peer_text(OTHER.peer)}/iris:1.0.0" in caught.value.complaint.cause
    assert library.registry.find(f"{peer_text(THIRD.peer)}/iris:1.0.0") == theirs
    assert library.registry.find(f"{peer_text(OTHER.peer)[-12:]}/iris:1.0.0") == mine
    assert library.registry.publishers("iris") == 2
    assert library.registry.publishers(f"{peer_text(OTHER.peer)[-12:]}/iris") == 1


@pytest.mark.parametrize("letters", [1, 6, 8, 11])
def test_fewer_letters_of_a_publisher_than_nobody_can_search_for_are_refused_with_the_ids_they_end(
    library, letters
) -> None:
    library.registry.hear(heard(OTHER), OTHER.peer)
    whole = peer_text(OTHER.peer)
    for find in (library.registry.find, library.registry.find_withdrawn):
        with pytest.raises(Refused) as caught:
            find(f"{whole[-letters:]}/iris")
        assert caught.value.complaint.code == "E-models-41" and whole in caught.value.complaint.cause


def test_letters_that_end_the_ids_of_two_publishers_name_neither_and_not_the_one_that_is_here(
    library, monkeypatch
) -> None:
    mine, theirs = heard(OTHER), heard(THIRD)
    for record in (mine, theirs):
        library.registry.hear(record, OTHER.peer)
    assert library.registry.find("iris", [mine.id]) == mine  # a bare name
    monkeypatch.setattr("dimnode.node.registry.named_by", lambda _peer, letters: letters == "same12letters")
    with pytest.raises(Refused) as caught:
        library.registry.find("same12letters/iris", [mine.id])
    said = caught.value.complaint
    assert said.code == "E-models-02" and all(peer_text(key.peer) in said.cause for key in (OTHER, THIRD))


def test_of_one_publishers_equal_versions_the_newest_counts(library) -> None:
    library.registry.hear(heard(OTHER, at_ms=1), OTHER.peer)
    library.registry.hear(heard(OTHER, at_ms=2), OTHER.peer)
    assert library.registry.find("iris").payload["at_ms"] == 2


@pytest.mark.parametrize("version", ["²", "1.²", "", "1..2", "v1", "1.0-beta", "٣", "9" * 32])
def test_any_version_that_a_stranger_writes_can_be_compared(library, version) -> None:
    library.registry.hear(heard(OTHER, version=version or "0"), OTHER.peer)
    library.registry.hear(heard(OTHER, version="0.1"), OTHER.peer)
    library.registry.find("iris")


def test_a_manifest_is_kept_once_when_a_job_uses_it(library) -> None:
    record = heard(OTHER)
    library.registry.hear(record, OTHER.peer)
    assert library.registry.unkept([record.id]) == [record]
    assert library.registry.unkept([record.id]) == []


def test_files_that_an_older_version_kept_become_blobs_without_a_copy(tmp_path, journal, blobs) -> None:
    content = os.urandom(3 << 20)
    old = tmp_path / "home" / "models" / f"{hashlib.sha256(content).hexdigest()}.onnx"
    old.write_bytes(content)
    inode = old.stat().st_ino
    body = {"name": "iris", "version": "1.0.0", "format": "onnx", "files": [["m", blob_cid(content), len(content)]]}
    body |= {"inputs": [], "outputs": [], "labels": [], "licence": "", "origin": "trained", "access": "public"}
    _, payload = compose("manifest", {"net": OPEN_SWARM_ID, "by": KEY.peer, "at_ms": 1}, body)
    record = open_record(seal(KEY, "manifest", payload))
    rows = {"records": [("manifest", record.id, b"", 0, 0, record.envelope)], "models": [(record.id, old.stem)]}
    trio.run(journal.commit, rows)
    library = Library(tmp_path / "home", KEY, OPEN_SWARM_ID, journal, blobs)
    place = library.models[record.id].files["m"]
    assert (place.stat().st_ino, place.read_bytes() == content, old.exists()) == (inode, True, False)
    assert library.usable() == [record.id]


def test_a_folder_is_one_model_with_roles_by_name(tmp_path, library) -> None:
    folder = tmp_path / "net"
    (folder / "sub").mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "tokenizer.json", "labels.txt", "sub/notes.md", ".hidden"):
        (folder / name).write_bytes(name.encode())
    (folder / "empty.txt").write_bytes(b"")
    (folder / CARD).write_text('name = "net"\n[notes]\nmine = "alone"\n')  # the manifest says what it says of the model
    found = gather(folder)
    assert not [file for file in found.files if file.path == CARD] and CARD not in found.skipped
    manifest = Manifest.of(add(library, folder))
    assert manifest.format == "torch"
    assert {file.path: file.role for file in manifest.files} == {
        "config.json": "config",
        "labels.txt": "labels",
        "model.safetensors": "weights",
        "sub/notes.md": "other",
        "tokenizer.json": "tokenizer",
    }
    assert manifest.main.path == "model.safetensors"


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["a.onnx", "A.onnx"], "E-models-26"),
        (["a.onnx", "zürich.json"], "E-models-26"),
        (["a.onnx", "a\\b"], "E-models-26"),
        ([f"f{number}" for number in range(65)], "E-models-27"),
        ([], "E-models-05"),
    ],
    ids=["twice", "letters", "backslash", "too many", "nothing"],
)
def test_a_folder_that_is_no_model_is_refused_and_nothing_is_kept(tmp_path, library, names, code) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    for name in names:
        (folder / os.fsdecode(name.encode())).write_bytes(b"x")  # also where no locale says UTF-8
    if len({*folder.iterdir()}) < len(names):
        pytest.skip("this file system knows no capital letters")
    assert refused(add, library, folder) == code
    assert (library.blobs.all(), library.models) == ([], {})


def test_the_names_of_a_models_columns_travel_in_its_manifest(library, model) -> None:
    inputs = [("x", "float32", [-1, 2])]
    assert Manifest.of(add(library, model, inputs=inputs, columns=["age", "size"])).columns == ("age", "size")
    for wrong in (["age"], ["age", "age"], ["age", ""]):
        assert refused(add, library, model, inputs=inputs, columns=wrong) == "E-models-07"


@pytest.mark.parametrize("said", [["a", "a"], [1], "ab", {"a": 1}, [""]])
def test_columns_that_a_stranger_named_otherwise_say_nothing(library, model, said) -> None:
    record = add(library, model)
    assert Manifest.of(record._replace(payload={**record.payload, "x_columns": said})).columns == ()


def test_a_pickle_is_refused_with_the_conversion_to_use_and_left_out_of_a_folder(tmp_path, library) -> None:
    (tmp_path / "m.pt").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(Refused) as caught:
        trio.run(library.add_model, ModelCard(name="m"), tmp_path / "m.pt", 1)
    assert caught.value.complaint.code == "E-exec-62"
    assert "safetensors" in caught.value.complaint.hint
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "m.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04" + bytes(100))
    package = folder / "m.mlpackage" / "Data" / "com.apple.CoreML"
    package.mkdir(parents=True)
    (package / "weight.bin").write_bytes(b"numbers")
    (folder / "sd.pt").write_bytes(b"no magic")
    found = gather(folder)
    assert ([file.path for file in found.files], found.skipped) == (
        ["m.mlpackage/Data/com.apple.CoreML/weight.bin", "m.safetensors"],
        ("pytorch_model.bin", "sd.pt"),
    )


def test_a_link_in_a_folder_is_refused_wherever_it_points(tmp_path, library) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "a.onnx").write_bytes(b"x")
    (folder / "b.json").symlink_to(folder / "a.onnx")
    assert refused(add, library, folder) == "E-models-26"
    (folder / "b.json").unlink()
    (folder / "up").symlink_to(tmp_path)
    assert refused(add, library, folder) == "E-models-26"


def test_the_nodes_own_directory_is_never_published(tmp_path, library, model) -> None:
    (tmp_path / "home" / "x.onnx").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "home")
    for source in (tmp_path, tmp_path / "home", tmp_path / "home" / "x.onnx", tmp_path / "link"):
        assert refused(add, library, source) == "E-models-28"


def test_no_nodes_directory_is_published_and_none_is_looked_through(tmp_path) -> None:
    """A running one holds a socket: not that has to be mended."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "identity.key").write_bytes(b"x")
    (other / "control.sock").symlink_to(other / "nowhere")
    with pytest.raises(Refused, match="E-models-28"):
        gather(other)


def test_an_upload_that_comes_again_while_it_becomes_a_model_is_not_taken_for_changed(tmp_path, library) -> None:
    """Whoever knows the bytes may hand them in once more: a new file under the same name."""
    place, again = tmp_path / "home" / "graph", tmp_path / "home" / "again"
    place.write_bytes(b"a graph")
    again.write_bytes(b"a graph")
    os.utime(again, ns=(1, 1))

    def comes_again(_done: int, _all: int) -> None:
        if again.exists():
            os.replace(again, place)

    files = [SourceFile("m.onnx", "model", place)]
    record = trio.run(library.add_uploads, ModelCard(name="iris"), files, 1, comes_again)
    assert not again.exists() and record.id in library.models


def test_uploads_become_a_model_without_a_copy(tmp_path, library) -> None:
    places = {}
    for name, content in (("graph", b"a graph" * 300_000), ("words", b"words")):
        places[name] = tmp_path / "home" / name
        places[name].write_bytes(content)

    def uploads(*rows: tuple[str, str, Path]):
        files = [SourceFile(path, role, place) for path, role, place in rows]
        return trio.run(library.add_uploads, ModelCard(name="iris"), files, 1)

    record = uploads(("m.onnx", "model", places["graph"]), ("vocab/words.txt", "other", places["words"]))
    kept = library.models[record.id].files
    assert {path: place.stat().st_ino for path, place in kept.items()} == {
        "m.onnx": places["graph"].stat().st_ino,
        "vocab/words.txt": places["words"].stat().st_ino,
    }
    places["graph"].unlink()  # as the sweep of uploads does after a day
    assert kept["m.onnx"].read_bytes() == b"a graph" * 300_000
    (tmp_path / "home" / "pickle").write_bytes(b"\x80\x04" + b"." * 80)
    words = places["words"]
    for rows, code in (
        ([("../m.onnx", "model", words)], "E-models-26"),
        ([("/m.onnx", "model", words)], "E-models-26"),
        ([("m.onnx", "model", words), ("M.onnx", "other", words)], "E-models-26"),
        ([("m.txt", "other", words)], "E-models-05"),
        ([("m.onnx", "model", tmp_path / "home" / "gone")], "E-models-05"),
        ([("m.pt", "model", tmp_path / "home" / "pickle")], "E-exec-62"),
        ([(f"{number}.npz", "weights", words) for number in range(65)], "E-models-27"),
    ):
        assert refused(uploads, *rows) == code


def test_a_policy_price_and_past_stand_in_the_manifest(library, model) -> None:
    first = add(library, model)
    price = {"micro": 250, "currency": "EUR", "unit": "row"}
    card = {"version": "2", "access": "pay-per-use", "price": PriceCard(**price), "previous": cid_text(first.id)}
    card |= {"lineage": [("fine-tuned", cid_text(first.id))], "dtype": "float16", "max_batch": 4}
    manifest = Manifest.of(add(library, model, **card))
    assert (manifest.access, manifest.price.micro, manifest.previous) == ("pay-per-use", 250, first.id)
    assert (manifest.lineage, manifest.dtype, manifest.max_batch) == ((("fine-tuned", first.id),), "float16", 4)


def test_a_dropped_model_is_gone_after_a_restart_and_its_files_may_go(tmp_path, journal, library, model) -> None:
    record = add(library, model)
    trio.run(library.drop, record.id)
    assert (library.models, library.blobs.pins()) == ({}, {})
    assert again(tmp_path, journal).models == {}
    assert add(library, model).id == record.id
    assert list(library.models) == [record.id]


@pytest.mark.parametrize("begun", ["drop", "publish"])
def test_pins_that_a_crash_left_of_a_model_that_is_not_here_end_with_the_next_start(
    tmp_path, journal, library, model, monkeypatch, begun
) -> None:
    """Journal and book of blobs are two files: a process may die between them."""
    theirs = library.blobs.add(model, pin="model railway")
    with monkeypatch.context() as dying:
        if begun == "drop":
            record = add(library, model)
            dying.setattr(library, "_unpin_files", lambda _: None)
            trio.run(library.drop, record.id)
        else:
            dying.setattr(library, "keep", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                add(library, model)
    assert len(library.blobs.pins()[theirs.root]) == 2
    with BlobStore(tmp_path / "home", 1 << 30) as blobs:
        Library(tmp_path / "home", KEY, OPEN_SWARM_ID, journal, blobs)
        assert blobs.pins() == {theirs.root: ["model railway"]}


def test_a_model_whose_files_cannot_be_kept_is_not_offered_and_the_node_starts(
    tmp_path, journal, library, model
) -> None:
    record = add(library, model)
    library.blobs.unpin(Manifest.of(record).files[0].root, pin_of(record.id))
    with BlobStore(tmp_path / "home", 1 << 30, replace(LIMITS.store, blob_pins_max=0)) as blobs:
        assert Library(tmp_path / "home", KEY, OPEN_SWARM_ID, journal, blobs).models == {}
    assert list(again(tmp_path, journal).models) == [record.id]


def test_a_private_model_is_used_here_and_told_to_nobody(library, model) -> None:
    record = add(library, model, access="private")
    assert library.usable() == [record.id]
    assert library.advert_body()["models"] == []
    assert library.offered() == []


def test_a_model_may_have_eight_gigabytes_and_a_larger_one_is_refused_before_it_is_read(tmp_path, library) -> None:
    most = LIMITS.exec.model_bytes_max
    assert most >= 8 * 1024**3
    large = tmp_path / "large.onnx"
    with large.open("wb") as file:
        file.write(b"a graph")
        file.truncate(most + 1)  # all a hole: to read it would take seconds
    with pytest.raises(Refused, match="the model has 8589934593 bytes") as caught:
        add(library, large)
    assert (caught.value.complaint.code, caught.value.complaint.cause) == ("E-models-06", "a model has at most 8 GiB")
    assert not library.models
    assert not library.blobs.all()


def test_what_is_no_plain_model_file_is_refused(tmp_path, library, model) -> None:
    (tmp_path / "link.onnx").symlink_to(model)
    (tmp_path / "empty.onnx").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.onnx")
    for name in ("link.onnx", "empty.onnx", "pipe.onnx", "absent.onnx"):
        assert refused(add, library, tmp_path / name) == "E-models-05"
    assert library.blobs.all() == []


def test_a_model_that_the_system_will_not_open_is_refused_by_its_reason(model) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))  # refuses root, too, as a file's mode does not
    try:
        with pytest.raises(Refused) as caught:
            gather(model)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (caught.value.complaint.code, caught.value.complaint.cause) == ("E-models-05", os.strerror(errno.EMFILE))


def test_a_model_with_another_digest_or_format_is_refused(library, model) -> None:
    assert refused(add, library, model, sha256="00" * 32) == "E-models-04"
    assert refused(add, library, model, format="pickle") == "E-models-03"


def test_a_card_with_something_else_where_a_word_belongs_is_refused_and_ends_no_node(library, model) -> None:
    assert refused(add, library, model, tokenizer="a\0b") == "E-models-05"
    assert refused(add, library, model, pre=[{"op": ["scale"]}]) == "E-exec-90"
    assert refused(add, library, model, post=[{"op": {}}]) == "E-exec-90"
    assert refused(add, library, model, post=[{"op": {"a": 1, b"a": 1}}]) == "E-exec-90"
    assert refused(card_of, {"name": "iris", "origin": "\ud800"}) == "E-models-07"


WRONG_CARDS = [
    {"name": ""},
    {"name": "a/b"},
    {"name": "a:b"},
    {"name": "iris "},
    {"name": "x" * 101},
    {"version": ""},
    {"version": "9" * 33},
    {"version": "1/2"},
    {"version": "1:2"},
    {"version": " 1"},
    {"version": "1 "},
    {"version": "\u0661.0"},
    {"version": "1\n"},
    {"origin": "stolen"},
    {"licence": "x" * 129},
    {"summary": "x" * 513},
    {"labels": ["x" * 65]},
    {"labels": ["x"] * 257},
    {"inputs": [("x", "float32", [1] * 9)]},
    {"inputs": [("", "float32", [1])]},
    {"outputs": [("x", "a type of far too long a name", [1])]},
    {"outputs": [("x", "float32", [-2])]},
    {"summary": "\ud800"},
    {"name": "tri\u0430ge"},
    {"name": "a\u202eb"},
    {"access": "secret"},
    {"access": "pay-per-use"},
    {"previous": "b"},
    {"lineage": [("base", "../x")]},
    {"dtype": "x" * 33},
]


@pytest.mark.parametrize("card", WRONG_CARDS, ids=str)
def test_a_card_that_no_record_can_hold_is_refused(library, model, card) -> None:
    assert refused(add, library, model, **card) == "E-models-07"
    assert library.models == {}


def table(tmp_path: Path, header: str, encoding: str = "utf-8") -> Path:
    (tmp_path / "t.csv").write_text(header + "\n1,2,3\n", encoding=encoding)
    return tmp_path / "t.csv"


def test_a_cabinet_offers_its_features_and_survives_a_restart(tmp_path, journal, library, monkeypatch) -> None:
    table(tmp_path, "id,age,sick")
    monkeypatch.chdir(tmp_path)
    cabinet = add_cabinet(library, Path("t.csv"), label="sick", exclude=["id"])
    assert cabinet.columns == ("age",)
    assert Path(cabinet.path) == tmp_path / "t.csv"
    assert again(tmp_path, journal).cabinets.by_name == library.cabinets.by_name
    assert library.advert_body()["cabinets"][0]["columns"] == ["age"]


def test_a_byte_order_mark_is_no_part_of_a_column_name(tmp_path, library) -> None:
    assert add_cabinet(library, table(tmp_path, "age,sick", "utf-8-sig"), label="age").columns == ("sick",)


def test_a_missing_column_is_named(tmp_path, library) -> None:
    source = table(tmp_path, "id,age,sick")
    assert refused(add_cabinet, library, source, label="ill") == "E-data-02"
    assert refused(add_cabinet, library, source, exclude=["ill"]) == "E-data-02"


def test_what_is_no_table_is_refused(tmp_path, library) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("pipe.csv", "absent.csv", "home"):
        assert refused(add_cabinet, library, tmp_path / name) == "E-data-01"
    for header in ("", "a,a", "x" * 65):
        assert refused(add_cabinet, library, table(tmp_path, header)) == "E-data-01"
    (tmp_path / "t.csv").write_text("5ec3e7\n")  # a key, say: everybody would hear it as a column's name
    assert refused(add_cabinet, library, tmp_path / "t.csv") == "E-data-01"
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    assert refused(add_cabinet, library, tmp_path / "t.csv") == "E-data-01"


def test_a_cabinet_that_was_withdrawn_stays_so_and_may_come_back(tmp_path, journal, library) -> None:
    add_cabinet(library, table(tmp_path, "age,sick"))
    trio.run(library.cabinets.remove, "patients")
    assert library.cabinets.by_name == again(tmp_path, journal).cabinets.by_name == {}
    assert library.advert_body()["cabinets"] == []
    assert refused(lambda: trio.run(library.cabinets.remove, "patients")) == "E-data-05"
    add_cabinet(library, table(tmp_path, "age,sick"))
    assert list(again(tmp_path, journal).cabinets.by_name) == ["patients"]


def test_a_cabinet_that_is_withdrawn_twice_at_once_is_refused_the_second_time(tmp_path, library) -> None:
    codes: list[str] = []

    async def withdraw() -> None:
        try:
            await library.cabinets.remove("patients")
        except DimError as no:
            codes.append(no.complaint.code)

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(withdraw)
            nursery.start_soon(withdraw)

    add_cabinet(library, table(tmp_path, "age,sick"))
    trio.run(both)
    assert codes == ["E-data-05"]


@pytest.mark.parametrize("wrong", [{"name": ""}, {"name": "x" * 129}, {"label": None}, {"policy": "any"}, {"name": 5}])
def test_a_cabinet_that_no_record_can_hold_is_refused(tmp_path, library, wrong) -> None:
    assert refused(add_cabinet, library, table(tmp_path, "a,b"), **wrong).startswith("E-data-0")
    assert library.cabinets.by_name == {}


def test_the_advert_of_the_fullest_library_fits_a_record(tmp_path, library) -> None:
    columns = ",".join(f"{number:03}".ljust(64, "ü") for number in range(300))
    source = table(tmp_path, columns)
    for number in range(66):
        add_cabinet(library, source, name=f"cabinet {number:02}".ljust(100, "ü"))
    body = library.advert_body()
    assert len(body["cabinets"]) == 64
    body |= {"slots": 1, "runtimes": [], "sandbox": "", "agent": "", "addresses": ["x" * 256] * 16}
    body["models"] = [OPEN_SWARM_ID] * 256
    compose("advert", {"net": OPEN_SWARM_ID, "by": KEY.peer, "at_ms": 1}, body)


def test_a_card_is_decoded_strictly() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": 5}, ModelCard)


def test_a_cabinet_to_be_evaluated_on_needs_a_column_with_the_truth_at_once(tmp_path, library) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("age,ill\n70,1\n")
    policy = POLICY | {"operations": ["evaluate", "statistics"]}
    assert refused(add_cabinet, library, source, policy=policy) == "E-data-04"
    assert add_cabinet(library, source, label="ill", policy=policy).label == "ill"


def test_columns_of_conditions_are_columns_of_the_file_and_outlast_a_restart(tmp_path, journal, library) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("age,year\n70,2001\n")
    assert refused(add_cabinet, library, source, policy=POLICY | {"where": ["yaer"]}) == "E-data-02"
    add_cabinet(library, source, policy=POLICY | {"where": ["year"]})
    assert again(tmp_path, journal).cabinets.by_name["patients"].policy.where == {"year"}


def test_a_changed_file_of_an_older_version_costs_its_model_and_not_the_start(tmp_path, library, blobs, model) -> None:
    record = add(library, model)
    [file] = Manifest.of(record).files
    blobs.unpin(file.root, f"model {cid_text(record.id)}")
    blobs.remove(file.root)
    old = model_file(tmp_path / "home", hashlib.sha256(b"a model").hexdigest())
    old.parent.mkdir(exist_ok=True)
    old.write_bytes(b"another")
    started = Library(tmp_path / "home", KEY, OPEN_SWARM_ID, library._journal, blobs)
    assert record.id not in started.models and old.read_bytes() == b"another"
    old.write_bytes(b"a model")
    assert record.id in Library(tmp_path / "home", KEY, OPEN_SWARM_ID, library._journal, blobs).models


def test_the_declared_hash_is_that_of_the_file_which_a_runtime_opens(tmp_path, library) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "m.onnx").write_bytes(b"a model")
    assert add(library, folder, sha256=hashlib.sha256(b"a model").hexdigest()).payload["name"] == "iris"
    with pytest.raises(Refused) as no:
        add(library, folder, sha256=hashlib.sha256(b"{}").hexdigest())
    assert no.value.complaint.code == "E-models-04"


def test_a_version_is_published_once_and_says_one_thing(tmp_path, library, model):
    first = add(library, model)
    assert add(library, model, 2).id == first.id
    model.write_bytes(b"another model")
    assert refused(add, library, model) == "E-models-34"
    assert refused(add, library, model, summary="other words") == "E-models-34"
    assert add(library, model, version="2").id != first.id


def test_a_bare_name_is_no_model_that_this_node_published_and_removed(library, model):
    good = add(library, model)
    model.write_bytes(b"a broken one")
    broken = add(library, model, 2, version="2")
    assert library.registry.find("iris", library.chosen()).id == broken.id
    trio.run(library.drop, broken.id)
    assert library.registry.find("iris", library.chosen()).id == good.id
    assert library.registry.find("iris:2", library.chosen()).id == broken.id


@pytest.mark.parametrize(("access", "price"), [("pay-per-use", None), ("private", PriceCard(micro=1, currency="EUR"))])
def test_a_price_goes_with_pay_per_use_and_with_nothing_else(library, model, access, price):
    with pytest.raises(Refused, match=access) as caught:
        add(library, model, access=access, price=price)
    assert (caught.value.complaint.code, "price" in caught.value.complaint.what) == ("E-models-07", True)


def test_a_model_whose_file_went_missing_is_not_published_in_half(library, model, journal, monkeypatch) -> None:
    keep = library.blobs.add

    def keep_and_lose(*arguments):
        kept = keep(*arguments)
        library.blobs.path(kept.root).unlink()
        return kept

    monkeypatch.setattr(library.blobs, "add", keep_and_lose)
    assert refused(add, library, model) == "E-models-29"
    assert not library.models and not library.registry.manifests
    assert not journal.rows("SELECT * FROM models") and not journal.rows("SELECT * FROM records")
    assert not library.blobs.pins()
    monkeypatch.setattr(library.blobs, "add", keep)
    assert add(library, model).id in library.models
