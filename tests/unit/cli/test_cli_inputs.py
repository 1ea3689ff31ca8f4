"""Input as people give it."""

import io

import pytest

from dimnode.cli.inputs import Choice, read_input
from dimnode.client import read_output
from dimnode.errors import ConfigError, DimError, Refused

TWO = [["x", "float32", [-1, 2]]]


@pytest.fixture
def given(tmp_path):
    """A file with this text; its path."""

    def write(text, name="rows.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_numeric_columns_of_a_csv_file_become_the_models_input(given):
    blob = read_input(given("a,b\n1,2\n3.5,-4\n"), Choice(), TWO)
    assert read_output(blob) == {"x": [[1.0, 2.0], [3.5, -4.0]]}


def test_the_input_takes_the_name_and_type_that_the_model_declares(given):
    blob = read_input(given("a,b\n1,2\n"), Choice(), [["measures", "int64", [-1, 2]]])
    assert read_output(blob) == {"measures": [[1, 2]]}


def test_text_columns_are_left_out_aloud(given, capsys):
    blob = read_input(given("who,a,b\nanna,1,2\n"), Choice(), TWO)
    assert read_output(blob) == {"x": [[1.0, 2.0]]}
    assert "left out, not numbers: who" in capsys.readouterr().err


def test_columns_are_chosen_in_the_order_in_which_they_are_named(given):
    path = given("a,b,c\n1,2,3\n")
    assert read_output(read_input(path, Choice(columns=("c", "a")), TWO)) == {"x": [[3.0, 1.0]]}
    assert read_output(read_input(path, Choice(drop=("b",)), TWO)) == {"x": [[1.0, 3.0]]}


def test_a_table_with_the_columns_that_the_model_names_is_read_by_them(given, capsys):
    path = given("who,c,seen,a\n7,1,2,3\n")
    assert read_output(read_input(path, Choice(usual=("a", "c")), TWO)) == {"x": [[3.0, 1.0]]}
    assert "columns as the model names them: 2 of 4" in capsys.readouterr().err
    assert read_output(read_input(path, Choice(columns=("c", "seen"), usual=("a", "c")), TWO)) == {"x": [[1.0, 2.0]]}
    assert read_output(read_input(path, Choice(drop=("who",), usual=("a", "c")), TWO)) == {"x": [[3.0, 1.0]]}
    with pytest.raises(Refused):  # whoever drops a column that the model names has another choice in mind
        read_input(path, Choice(drop=("a",), usual=("a", "c")), TWO)
    with pytest.raises(Refused) as caught:  # it has not all of them: what is meant has to be said
        read_input(path, Choice(usual=("a", "z")), TWO)
    said = caught.value.complaint
    assert (said.code, said.hint) == (
        "E-input-06",
        "keep 2 of these, in the model's order: --columns who,c,seen,a",
    )


@pytest.mark.parametrize(
    ("text", "name", "told"),
    [
        ("a,b\n1,2\n3,1e300\n", "rows.csv", "row 2, column 'b' is 1e+300"),
        ("[[1, 2], [3, NaN]]", "rows.json", "input 'x': row 2, column 2 is nan"),
        ("[[1, 2], [3, 1e300]]", "rows.json", "input 'x': row 2, column 2 is 1e+300"),
        ("[[1, 2], [1e999, 1]]", "rows.json", "input 'x': row 2, column 1 is inf"),
        ("[[1, 2], [3]]", "rows.json", "input 'x': row 2 has 1 entry, the first has 2"),
        ('[[1, 2], [3, "x"]]', "rows.json", "input 'x': row 2, column 2 is no number"),
    ],
)
def test_a_number_that_cannot_be_used_is_named_with_its_place(given, text, name, told):
    with pytest.raises(Refused) as caught:
        read_input(given(text, name), Choice(), TWO)
    assert caught.value.complaint.what == told


def test_rows_are_numbered_from_one(given):
    path = given("a,b\n1,2\n3,4\n5,6\n")
    assert read_output(read_input(path, Choice(rows=(3, 1)), TWO)) == {"x": [[5.0, 6.0], [1.0, 2.0]]}


def test_a_model_of_one_dimension_takes_one_column(given):
    assert read_output(read_input(given("a\n1\n2\n"), Choice(), [["v", "float64", [-1]]])) == {"v": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("text", "choice", "code"),
    [
        ("a,b\n1,nan\n", Choice(), "E-input-02"),
        ("a,b\n1,2\n3,inf\n", Choice(), "E-input-02"),
        ("a,b\n1,2\n3,x\n", Choice(), "E-input-01"),
        ("a,b\n1,2\n3\n", Choice(), "E-input-01"),
        ("id,a,b,c\n7,1,2,9\n8,3,4\n", Choice(drop=("id", "c")), "E-input-01"),
        ("a,b\n1,2,3\n", Choice(), "E-input-01"),
        ("a,b\n,2\n3,4\n", Choice(), "E-input-01"),
        ("a,b\n1,2\n3,\n", Choice(), "E-input-01"),
        ("a,b\nx,y\n", Choice(), "E-input-01"),
        ("a,b,c\n1,2,3\n", Choice(), "E-input-06"),
        ("a,b\n1,1e300\n", Choice(), "E-input-01"),
        ("a,b\n", Choice(), "E-input-04"),
        ("", Choice(), "E-input-04"),
        ("a,a\n1,2\n", Choice(), "E-cli-41"),
        ("a,b\n1,2\n", Choice(columns=("z",)), "E-cli-42"),
        ("a,b\n1,2\n", Choice(drop=("z",)), "E-cli-42"),
        ("a,b\n1,2\n", Choice(rows=(2,)), "E-cli-42"),
        ("a,b\n1,2\n", Choice(rows=(0,)), "E-cli-42"),
    ],
)
def test_a_csv_file_that_cannot_be_used_is_refused_by_code(given, text, choice, code):
    with pytest.raises(DimError) as caught:
        read_input(given(text), choice, TWO)
    assert caught.value.complaint.code == code


def test_a_column_that_is_not_there_is_answered_with_the_nearest_and_a_few_of_many(given):
    names = [f"column_{number}" for number in range(33)]
    with pytest.raises(DimError) as caught:
        read_input(given(",".join(names) + "\n" + ",".join("1" * 33) + "\n"), Choice(columns=("colum_7",)), [])
    said = caught.value.complaint
    assert said.hint == "did you mean 'column_7'?"
    assert said.cause.endswith("column_5 … (33 in all)")


def test_a_bad_cell_is_named_with_its_row_and_column(given):
    with pytest.raises(Refused, match="row 2, column 'b' is no number"):
        read_input(given("a,b\n1,2\n3,x\n"), Choice(), TWO)


def test_a_row_with_a_cell_too_few_never_moves_numbers_under_other_names(given):
    with pytest.raises(Refused, match="row 2 has 3 cells, the header has 4"):
        read_input(given("id,a,b,c\n7,1,2,9\n8,3,4\n"), Choice(drop=("id", "c")), TWO)


@pytest.mark.parametrize(
    ("text", "tensors"),
    [
        ("[[1, 2], [3, 4]]", {"x": [[1.0, 2.0], [3.0, 4.0]]}),
        ('{"x": [[1, 2]], "steps": [3]}', {"steps": [3], "x": [[1.0, 2.0]]}),
        ('{"x": [[1, 2]], "rate": 0.5}', {"rate": 0.5, "x": [[1.0, 2.0]]}),
    ],
)
def test_json_is_nested_lists_or_tensors_by_name(given, text, tensors):
    assert read_output(read_input(given(text, "i.json"), Choice(), TWO)) == tensors


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[[NaN, 1]]", "E-input-02"),
        ("[[1, 2], [3]]", "E-input-01"),
        ('[["a", "b"]]', "E-input-01"),
        ("[[true, false]]", "E-input-01"),
        ("[[1, 2, 3]]", "E-input-06"),
        ("[1, 2]", "E-input-06"),
        ("[[1, 2]", "E-cli-40"),
        ("[" * 100_000, "E-cli-40"),
        (f"[[{'1' * 5000}, 2]]", "E-cli-40"),
        ("{}", "E-input-03"),
    ],
)
def test_json_that_cannot_be_used_is_refused_by_code(given, text, code):
    with pytest.raises(DimError) as caught:
        read_input(given(text, "i.json"), Choice(), TWO)
    assert caught.value.complaint.code == code


def test_a_type_that_only_a_strangers_manifest_knows_takes_no_input(given):
    for name, text in (("i.json", "[[1, 2]]"), ("r.csv", "a,b\n1,2\n")):
        with pytest.raises(Refused, match="E-input-01"):
            read_input(given(text, name), Choice(), [["x", "float8", [-1, 2]]])


def test_whole_numbers_are_required_where_the_model_takes_integers(given):
    with pytest.raises(Refused, match="E-input-01"):
        read_input(given("a\n0.5\n"), Choice(), [["n", "int64", [-1, 1]]])


def test_a_dash_reads_stdin_and_knows_json_by_its_first_letter(monkeypatch):
    for text in ("a,b\n1,2\n", " [[1, 2]]"):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert read_output(read_input("-", Choice(), TWO)) == {"x": [[1.0, 2.0]]}


def test_stdin_that_is_no_text_is_one_complaint(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a,b\n\xff,2\n"), encoding="utf-8"))
    with pytest.raises(ConfigError, match="E-cli-41"):
        read_input("-", Choice(), TWO)


def test_a_model_with_several_inputs_wants_names(given):
    with pytest.raises(ConfigError, match="E-cli-43"):
        read_input(given("a\n1\n"), Choice(), [["a", "float32", [-1]], ["b", "float32", [-1]]])
