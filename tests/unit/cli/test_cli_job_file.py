"""Job files as people write them, and as somebody else might."""

import pytest

from dimnode.cli.inputs import Choice
from dimnode.cli.job_file import choice_of, file_of_job, hints_for_files, read_job_file
from dimnode.errors import ConfigError, Refused
from dimnode.limits import LIMITS
from dimnode.wire import pack_frame


@pytest.fixture
def given(tmp_path):
    """A file with this text; its path."""

    def write(text, name="job.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_job_file_is_yaml_or_json(given):
    assert read_job_file(given("pattern: chained\ntasks: [{model: m}]\n", "j.yaml"))["pattern"] == "chained"
    assert read_job_file(given('{"tasks": []}', "j.json")) == {"tasks": []}


@pytest.mark.parametrize(
    ("text", "name", "place"),
    [
        ("a: 1\nb: {c\nd: ]\n", "j.yaml", "line 3"),
        ('{\n"a": }', "j.json", "line 2"),
        ("a: !!python/none x", "j.yml", ""),
        *((f"a: !!{kind}", "j.yml", "") for kind in ("int ''", "int _", "float '-'", "bool x", "timestamp x")),
    ],
)
def test_a_malformed_job_file_is_named_with_the_line(given, text, name, place):
    with pytest.raises(ConfigError, match="E-cli-40") as caught:
        read_job_file(given(text, name))
    assert place in caught.value.complaint.what


def test_a_job_file_that_is_no_map_or_not_there_is_refused(given, tmp_path):
    with pytest.raises(ConfigError, match="E-cli-40"):
        read_job_file(given("- 1\n", "j.yaml"))
    with pytest.raises(ConfigError, match="E-cli-41") as caught:
        read_job_file(tmp_path / "nowhere.yaml")
    assert caught.value.complaint.hint == "check the path"


def test_an_input_that_names_a_file_is_recognised_and_checked():
    assert file_of_job({"input": {"x": [[1]]}}) is None
    wanted = file_of_job({"input": {"file": "rows.csv", "rows": [2], "drop": ["a"], "name": "y"}})
    assert wanted is not None
    assert choice_of(wanted) == Choice(drop=("a",), rows=(2,), name="y")
    wrongs = [{"column": ["a"]}, {"rows": "2"}, {"columns": 3}, {"drop": {"a": 1}}, {"columns": True}, {"drop": "a"}]
    for wrong in ({"file": "r.csv", **said} for said in wrongs):
        with pytest.raises(ConfigError, match="E-cli-43"):
            choice_of(wrong)


def test_a_date_is_the_text_that_stands_there(given):
    job = read_job_file(given("label: 2026-11-30\npurpose: 2026-13-45\n"))
    assert job == {"label": "2026-11-30", "purpose": "2026-13-45"}
    pack_frame(job)


DOUBLED = "".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 9)}]\n" for n in range(1, 10))


@pytest.mark.parametrize(
    ("text", "name", "told"),
    [
        ("tasks: &a [*a]\n", "j.yaml", "in each other"),
        (f"k0: &k0 [1]\n{DOUBLED}", "j.yaml", "more than"),
        ("1: 2\n", "j.yaml", "no text"),
        ("a: !!binary aGVs\n", "j.yaml", "bytes"),
        ("a: !!set {x}\n", "j.yaml", "set"),
        ("a: !!timestamp 2026-11-30\n", "j.yaml", "date"),
        (f"a: {2**64}\n", "j.yaml", "65 bits"),
        (f"a: {'1' * 5000}\n", "j.yaml", "malformed"),
        (f"a: {'[' * 3000}\n", "j.yaml", "malformed"),
        ('{"label": "\\ud800"}', "j.json", "surrogate"),
        ('{"\\ud800": 1}', "j.json", "surrogate"),
        ("[" * 100_000, "j.json", "malformed"),
        (f'{{"a": {"1" * 5000}}}', "j.json", "malformed"),
        (f'{{"a": {"[" * 40}{"]" * 40}}}', "j.json", "in each other"),
    ],
)
def test_what_no_frame_can_carry_is_refused_with_words_before_it_is_sent(given, text, name, told):
    with pytest.raises(ConfigError, match="E-cli-40") as caught:
        read_job_file(given(text, name))
    assert told in caught.value.complaint.what


def test_a_list_that_stands_twice_is_a_job_like_any_other(given):
    job = read_job_file(given("a: &rows [[1, 2]]\nb: *rows\n"))
    assert job == {"a": [[1, 2]], "b": [[1, 2]]}


def test_a_job_file_beyond_what_a_node_takes_is_not_read_whole(given):
    path = given("#" * (LIMITS.api.request_bytes_max + 1))
    with pytest.raises(Refused, match="E-cli-04"):
        read_job_file(path)


@pytest.mark.parametrize(
    ("flags", "keys"),
    [
        ("--row 1", "rows: [1]"),
        ("keep 2 of these, in the model's order: --columns a,'c d'", "columns: [a,'c d']"),
        ("--columns, --drop or --row", "columns, drop or rows"),
        ("did you mean 'a'?", "did you mean 'a'?"),
    ],
)
def test_hints_about_the_rows_of_a_job_file_name_its_keys_and_no_flags(flags: str, keys: str) -> None:
    with pytest.raises(Refused) as refused, hints_for_files():
        raise Refused("E-input-06", "what", "cause", flags)
    said = refused.value.complaint
    assert said.hint.endswith(keys)
    assert "--" not in said.hint
    assert (said.code, said.what, said.cause) == ("E-input-06", "what", "cause")
