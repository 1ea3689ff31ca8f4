"""Tables, files and texts as items; what a batch has done, on the disk; its result in three forms."""

import contextlib
import csv
import io
import json
import shutil
from dataclasses import dataclass

import numpy as np
import pytest
from arro3.core import Array, DataType
from arro3.core import Table as ArrowTable
from arro3.io import write_parquet

from dimnode.batches import Fault, Item, Piece
from dimnode.cli.batch_files import write_lines, write_result
from dimnode.cli.batch_spool import Spool, folder_of
from dimnode.cli.gather import gather, one_blob, plain_source
from dimnode.cli.inputs import Choice
from dimnode.cli.tables import bounded_lines, open_table
from dimnode.errors import ConfigError, DimError, Refused
from dimnode.records.item_rows import item_blob
from dimnode.records.items import item_tensors
from dimnode.records.tensors import Tensor, encode_tensors
from dimnode.records.transforms import Source

ROWS = (Source("x", "rows", ("b", "a")),)
TEXT = (Source("text", "text"),)
PICTURE = (Source("picture", "image"),)
TABLE = [{"a": 1, "b": 2.5, "text": "one"}, {"a": 3, "b": 4, "text": "zwei"}]


@pytest.fixture
def folder(tmp_path):
    """The same table in each form."""
    (tmp_path / "t.csv").write_text("a,b,text\n1,2.5,one\n3,4,zwei\n", encoding="utf-8")
    (tmp_path / "t.json").write_text(json.dumps(TABLE), encoding="utf-8")
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, TABLE)) + "\n\n", encoding="utf-8")
    columns = {
        "a": Array([1, 3], DataType.int64()),
        "b": Array([2.5, 4.0], DataType.float64()),
        "text": Array(["one", "zwei"], DataType.utf8()),
    }
    write_parquet(ArrowTable.from_pydict(columns), str(tmp_path / "t.parquet"))
    return tmp_path


def items_of(gathered):
    return list(gathered.items())


@pytest.mark.parametrize("name", ["t.csv", "t.json", "t.jsonl", "t.parquet"])
def test_a_table_is_the_same_in_every_form(folder, name):
    path = str(folder / name)
    found = gather([path], ROWS, Choice())
    assert [item.values for item in items_of(found)] == [{"x": [2.5, 1.0]}, {"x": [4.0, 3.0]}]
    assert found.count() == 2
    words = gather([path], TEXT, Choice())
    assert [item.values["text"] for item in items_of(words)] == ["one", "zwei"]
    assert [item.number for item in items_of(gather([path], ROWS, Choice(rows=(2,))))] == [2]
    plain = gather([path], [plain_source([["y", "float32", [-1, 2]]], Choice())], Choice())
    assert plain.sources[0].columns == ("a", "b")
    assert one_blob(plain)[0] == encode_tensors(
        [Tensor("y", "float32", (2, 2), np.array([[1, 2.5], [3, 4]], "<f4").tobytes())]
    )


@pytest.mark.parametrize("choice", [Choice(rows=(2,)), Choice(columns=("a",)), Choice(drop=("a",))])
@pytest.mark.parametrize("kind", ["text", "image"])
def test_what_chooses_from_a_table_is_refused_for_texts_and_files(kind, choice):
    source = Source("x", kind, (), "", ())
    with pytest.raises(ConfigError, match="E-cli-44"):
        gather(["a", "b", "c"], [source], choice)


def test_a_bad_row_is_a_fault_and_the_rows_after_it_are_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n3\n4,word\n5,nan\n6,7\n", encoding="utf-8")
    found = items_of(gather([str(path)], ROWS, Choice()))
    assert [(one.number, getattr(one, "code", "")) for one in found] == [
        (1, ""),
        (2, "E-input-01"),
        (3, "E-input-01"),
        (4, "E-input-02"),
        (5, ""),
    ]
    assert "column 'b' is no number" in found[2].reason
    with pytest.raises(Refused, match="E-input-01"):
        one_blob(gather([str(path)], ROWS, Choice()))
    lines = tmp_path / "t.jsonl"
    lines.write_text('{"a": 1, "b": 2}\nnothing\n[1]\n{"a": 3}\n', encoding="utf-8")
    codes = [getattr(one, "code", "") for one in items_of(gather([str(lines)], ROWS, Choice()))]
    assert codes == ["", "E-input-01", "E-input-01", "E-input-07"]


@pytest.mark.parametrize(
    ("name", "raw", "code"),
    [
        ("t.csv", b"", "E-input-04"),
        ("t.csv", b"a,a\n1,2\n", "E-cli-41"),
        ("t.csv", b"a,b\n\xff,2\n", "E-cli-41"),
        ("t.csv", b'a,b\n"' + b"x" * 200_000, "E-cli-41"),
        ("t.csv", b"a,c\n1,2\n", "E-cli-42"),
        ("t.json", b"[[1, 2]]", "E-cli-43"),
        ("t.json", b"{", "E-cli-40"),
        ("t.json", b"[" * 100_000, "E-cli-40"),
        ("t.jsonl", b"\n\n", "E-input-04"),
        ("t.parquet", b"", "E-cli-41"),
        ("t.parquet", b"PAR1" + bytes(40) + b"PAR1", "E-cli-41"),
        ("t.npy", b"\x93NUMPY", "E-cli-41"),
        ("t.npz", b"PK", "E-cli-41"),
    ],
)
def test_a_file_that_is_no_table_is_one_complaint(tmp_path, capfd, name, raw, code):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(DimError) as caught:
        items_of(gather([str(tmp_path / name)], ROWS, Choice()))
    assert caught.value.complaint.code == code
    assert "panicked" not in capfd.readouterr().err


def test_a_parquet_file_cut_anywhere_is_a_complaint_or_a_table(folder, tmp_path):
    whole = (folder / "t.parquet").read_bytes()
    for place in range(0, len(whole), 37):
        (tmp_path / "cut.parquet").write_bytes(whole[:place] + b"\x7f" + whole[place + 1 :])
        with contextlib.suppress(ConfigError):
            list(open_table(str(tmp_path / "cut.parquet")).rows())


def test_missing_files_are_one_complaint(tmp_path):
    for name in ("t.csv", "t.json", "t.parquet", "t.npy"):
        with pytest.raises(ConfigError, match="E-cli-41"):
            gather([str(tmp_path / name)], ROWS, Choice())
    with pytest.raises(ConfigError, match="E-cli-41"):
        gather(["missing.txt"], TEXT, Choice())


def test_files_of_a_folder_come_by_name_and_patterns_are_understood(tmp_path):
    for name in ("b.png", "a.png", ".hidden"):
        (tmp_path / name).write_bytes(name.encode())
    for given in ([str(tmp_path)], [f"{tmp_path}/*.png"]):
        found = items_of(gather(given, PICTURE, Choice()))
        assert [item.values["picture"] for item in found] == [b"a.png", b"b.png"]
    missing = items_of(gather([str(tmp_path / "c.png")], PICTURE, Choice()))
    assert missing[0].code == "E-cli-41"
    with pytest.raises(Refused, match="E-input-04"):
        gather([f"{tmp_path}/*.jpg"], PICTURE, Choice())


def test_a_table_may_name_files_beside_it(tmp_path):
    (tmp_path / "cat.png").write_bytes(b"cat")
    (tmp_path / "t.csv").write_text("picture,words\ncat.png,a cat\ndog.png,a dog\n", encoding="utf-8")
    both = (Source("picture", "image"), Source("caption", "text", ("words",)))
    good, bad = items_of(gather([str(tmp_path / "t.csv")], both, Choice()))
    assert good.values == {"picture": b"cat", "caption": "a cat"}
    assert bad.code == "E-cli-41"


def test_a_table_names_no_file_outside_its_folder(tmp_path):
    (tmp_path / "secret").write_bytes(b"key")
    folder = tmp_path / "from a stranger"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "cat.png").write_bytes(b"cat")
    (folder / "link").symlink_to(tmp_path / "secret")
    said = ["in/cat.png", "../secret", str(tmp_path / "secret"), "link", "in/../../secret"]
    (folder / "t.csv").write_text("\n".join(["picture", *said]), encoding="utf-8")
    good, *bad = items_of(gather([str(folder / "t.csv")], PICTURE, Choice()))
    assert good.values == {"picture": b"cat"}
    assert [one.code for one in bad] == ["E-input-01"] * 4
    assert all("outside the table's folder" in one.reason for one in bad)


def test_a_number_that_no_float_can_hold_costs_its_row_alone(tmp_path):
    path = tmp_path / "t.jsonl"
    rows = ['{"a": 1, "b": 2}', '{"a": 1, "b": 1' + "0" * 400 + "}", '{"a": 1, "b": 1' + "0" * 5000 + "}"]
    path.write_text("\n".join([*rows, rows[0]]), encoding="utf-8")
    found = items_of(gather([str(path)], ROWS, Choice()))
    assert [(one.number, getattr(one, "code", "")) for one in found] == [
        (1, ""),
        (2, "E-input-01"),
        (3, "E-input-01"),
        (4, ""),
    ]


def test_a_table_for_a_type_or_a_column_that_no_table_has_is_refused_and_no_bug_of_ours(tmp_path):
    (tmp_path / "t.json").write_text('[{"": 1}, {"a": 1}]', encoding="utf-8")
    found = items_of(gather([str(tmp_path / "t.json")], (Source("x", "rows", ("",)),), Choice()))
    assert [getattr(one, "code", "") for one in found] == ["", "E-input-07"]
    with pytest.raises(Refused, match="E-input-01"):
        item_blob((Source("x", "rows", (), "float8"),), [{"x": [1.0]}])


def test_the_rest_of_a_line_that_is_too_long_is_no_line_of_its_own(tmp_path):
    whole = io.BytesIO(b"one\n" + b"x" * 35 + b"\n\n" + b"123456789\n" + b"1234567890\n" + b"y" * 10)
    found = list(bounded_lines(whole, 10))
    assert found == [b"one\n", b"x" * 11, b"123456789\n", b"1234567890\n", b"y" * 10]
    assert [len(line) > 10 for line in found] == [False, True, False, True, False]


def test_a_text_is_itself_or_a_files(tmp_path):
    (tmp_path / "t.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    found = items_of(gather(["A sentence.", str(tmp_path / "t.txt")], TEXT, Choice()))
    assert [item.values["text"] for item in found] == ["A sentence.", "one\n\ntwo\n"]
    lines = gather([str(tmp_path / "t.txt")], TEXT, Choice(), lines=True)
    assert [item.values["text"] for item in items_of(lines)] == ["one", "two"]
    (tmp_path / "t.txt").write_bytes(b"\xff")
    assert items_of(gather([str(tmp_path / "t.txt")], TEXT, Choice()))[0].code == "E-cli-41"


LONG = "a sentence of many words " * 40


@pytest.mark.parametrize("sources", [TEXT, PICTURE])
@pytest.mark.parametrize("lines", [False, True])
def test_what_is_too_long_for_a_files_name_is_a_text_or_no_file_and_never_a_bug(sources, lines):
    [found] = items_of(gather([LONG], sources, Choice(), lines=lines))
    assert found.values == {"text": LONG} if sources is TEXT else found.code == "E-cli-41"


@pytest.mark.parametrize("name", ["t.txt", "~/t.txt"])
def test_a_file_of_lines_that_went_away_is_one_complaint(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "t.txt").write_text("one\ntwo\n")
    found = gather([name], TEXT, Choice(), lines=True)
    assert [item.values["text"] for item in items_of(found)] == ["one", "two"]
    (tmp_path / "t.txt").unlink()
    with pytest.raises(ConfigError, match="E-cli-41"):
        items_of(found)


def test_arrays_are_items_along_their_first_axis(tmp_path):
    np.save(tmp_path / "t.npy", np.arange(6, dtype=np.int16).reshape(3, 2))
    np.savez(tmp_path / "t.npz", u=np.zeros((2, 1)), v=np.ones(2, dtype=np.uint8))
    one = gather([str(tmp_path / "t.npy")], (Source("t", "tensor"),), Choice())
    assert one.count() == 3
    assert one.sources[0].dtype == "int16"
    assert items_of(one)[2].values == {"t": [4, 5]}
    two = gather([str(tmp_path / "t.npz")], (Source("u", "tensor"), Source("v", "tensor")), Choice())
    assert items_of(two)[1].values == {"u": [0.0], "v": 1}


# ---- what is done, and the result


@dataclass
class Ended:
    outputs: tuple[bytes, ...]
    job: bytes = bytes(37)
    status: str = "ok"
    code: str = ""
    reason: str = ""
    receipt: bytes | None = None
    index: int = 0


def piece(chunk, numbers, *, ragged=False):
    tensors = [
        Tensor("label", "int64", (len(numbers),), b"".join((n % 2).to_bytes(8, "little") for n in numbers)),
        Tensor("y", "float32", (len(numbers), 2), np.array([[n, n / 2] for n in numbers], "<f4").tobytes()),
        *item_tensors("word", [f"w{n}".encode() * (n % 3 if ragged else 1) for n in numbers]),
    ]
    return Piece(chunk, tuple(numbers), tuple(f"f{n}" for n in numbers), b"", Ended((encode_tensors(tensors),)))


def filled(out):
    spool = Spool.begin(out, {"version": 1})
    spool.add(piece(1, [5, 6]))
    spool.add(piece(0, [1, 3]))
    spool.add(Fault(4, "E-exec-95", "broken", "f4"))
    spool.add(piece(0, [2]))
    return spool


def test_the_result_is_in_the_order_of_the_input_whatever_came_first(tmp_path):
    out = tmp_path / "r.jsonl"
    spool = filled(out)
    write_result(spool, out, ["no", "yes"], ["word"])
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["item"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[0] == {"item": 1, "name": "f1", "label": 1, "y": [1.0, 0.5], "word": "w1", "predicted": "yes"}
    assert lines[3] == {"item": 4, "name": "f4", "error": {"code": "E-exec-95", "reason": "broken"}}
    spool.remove()
    assert not folder_of(out).exists()


def test_no_line_of_a_result_commands_the_terminal_that_shows_it(tmp_path):
    spool = Spool.begin(tmp_path / "r.jsonl", {})
    blob = encode_tensors(item_tensors("word", ["\x9b31m\u202eevil\u2028é".encode()]))
    spool.add(Piece(0, (1,), ("\x1b[2Jf",), b"", Ended((blob,))))
    out = io.StringIO()
    write_lines(spool, out, [], ["word"])
    assert all(sign.isprintable() for sign in out.getvalue().rstrip("\n"))
    said = json.loads(out.getvalue())
    assert (said["name"], said["word"]) == ("\x1b[2Jf", "\x9b31m\u202eevil\u2028é")


def test_a_table_of_results_has_a_place_for_every_item(tmp_path):
    out = tmp_path / "r.csv"
    write_result(filled(out), out, ["no", "yes"], ["word"])
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["item", "name", "label", "word", "y[0]", "y[1]", "predicted", "code", "reason"]
    assert [row["y[1]"] for row in rows] == ["0.5", "1.0", "1.5", "", "2.5", "3.0"]
    assert rows[3]["code"] == "E-exec-95"


def test_arrays_of_results_are_numpys(tmp_path):
    out = tmp_path / "r.npz"
    spool = Spool.begin(out, {})
    spool.add(piece(0, [1, 2, 3, 5], ragged=True))
    spool.add(Fault(4, "E-exec-95", "broken"))
    write_result(spool, out, [], ["word"])
    with np.load(out) as found:
        assert found["item"].tolist() == [1, 2, 3, 4, 5]
        assert found["failed"].tolist() == [0, 0, 0, 1, 0]
        assert found["y"].dtype == np.float32
        assert found["y"][:, 0].tolist() == [1, 2, 3, 0, 5]
        assert found["word.sizes"].tolist() == [2, 4, 0, 0, 4]
        assert found["word"].tobytes() == b"w1w2w2w5w5"


def test_answers_of_several_shapes_are_no_arrays_and_can_still_be_had_as_lines(tmp_path):
    out = tmp_path / "r.npz"
    spool = Spool.begin(out, {})
    spool.add(piece(0, [1, 2]))
    wider = encode_tensors([Tensor("y", "float32", (1, 3), bytes(12))])
    spool.add(Piece(1, (3,), ("f3",), b"", Ended((wider,))))
    with pytest.raises(ConfigError, match="item 3 has another shape") as caught:
        write_result(spool, out, [], ["word"])
    assert not out.exists()
    moved = tmp_path / "r.jsonl"
    assert str(folder_of(moved)) in caught.value.complaint.hint
    spool.close()
    folder_of(out).rename(folder_of(moved))
    write_result(Spool.resume(moved), moved, [], ["word"])
    assert [json.loads(line)["item"] for line in moved.read_text().splitlines()] == [1, 2, 3]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "npz"])
def test_a_model_cannot_say_which_item_it_answers(tmp_path, suffix):
    out = tmp_path / f"r.{suffix}"
    spool = Spool.begin(out, {})
    lies = [Tensor(name, "int64", (1,), (9).to_bytes(8, "little")) for name in ("code", "failed", "item", "name")]
    spool.add(Piece(0, (1,), ("f1",), b"", Ended((encode_tensors(lies),))))
    write_result(spool, out, [], [])
    if suffix == "npz":
        with np.load(out) as found:
            assert (found["item"].tolist(), found["failed"].tolist(), found["model.item"].tolist()) == ([1], [0], [9])
        return
    with out.open(newline="") as file:
        line = json.loads(file.readline()) if suffix == "jsonl" else next(csv.DictReader(file))
    assert (str(line["item"]), line["name"], str(line["model.item"])) == ("1", "f1", "9")
    assert line.get("code", "") == ""


@pytest.mark.slow
def test_what_was_done_is_known_after_a_crash_at_any_byte(tmp_path):
    out = tmp_path / "r.jsonl"
    spool = filled(out)
    spool.add(Fault(7, "E-jobs-05", "nobody", passing=True))
    spool.close()
    notes = (folder_of(out) / "done.jsonl").read_bytes()
    answers = (folder_of(out) / "answers.bin").read_bytes()
    for place in range(0, len(notes) + 1, 7):
        (folder_of(out) / "done.jsonl").write_bytes(notes[:place])
        (folder_of(out) / "answers.bin").write_bytes(answers)
        again = Spool.resume(out)
        whole = notes[:place].count(b"\n")
        assert [again.has(n) for n in range(1, 8)] == [
            whole >= 2,
            whole >= 4,
            whole >= 2,
            whole >= 3,
            whole >= 1,
            whole >= 1,
            False,
        ]
        again.add(piece(2, [8]))
        again.close()
        assert Spool.resume(out).has(8)
    (folder_of(out) / "answers.bin").write_bytes(answers[:5])
    assert Spool.resume(out).answered == 0


def test_a_batch_is_begun_once_and_resumed_only_when_there_is_one(tmp_path):
    out = tmp_path / "r.jsonl"
    with pytest.raises(ConfigError, match="E-cli-46"):
        Spool.resume(out)
    Spool.begin(out, {}).close()
    with pytest.raises(ConfigError, match="E-cli-46"):
        Spool.begin(out, {})
    shutil.rmtree(folder_of(out))
    out.touch()
    with pytest.raises(ConfigError, match="is left to be done"):
        Spool.resume(out)
    assert isinstance(Item(1, {}), Item)
