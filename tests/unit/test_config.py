"""Settings: which source wins, how a mistake is named, where the control socket is."""

import os
import stat
import tempfile
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimnode.config import (
    Config,
    KuboConfig,
    QuotasTable,
    QuotaTable,
    api_url,
    default_home,
    load_config,
    render_config,
    socket_path,
    unknown_variables,
)
from dimnode.errors import ConfigError
from dimnode.node.quotas import check_quotas, quotas_of
from dimnode.records.ids import peer_of_key, peer_text


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("DIM_") or name == "XDG_RUNTIME_DIR":
            monkeypatch.delenv(name)


def complaint(home: Path, flags=None):
    with pytest.raises(ConfigError) as caught:
        load_config(home, flags)
    return caught.value.complaint


def test_flags_override_variables_override_the_file_overrides_the_profile(tmp_path, monkeypatch) -> None:
    assert load_config(tmp_path).listen == ("/ip4/127.0.0.1/tcp/4710",)
    (tmp_path / "config.toml").write_text('listen = ["/file"]\nname = "file"\nworkers = 3\n')
    assert load_config(tmp_path).listen == ("/file",)
    monkeypatch.setenv("DIM_LISTEN", "/variable")
    monkeypatch.setenv("DIM_NAME", "variable")
    found = load_config(tmp_path, {"name": "flag", "listen": None})
    assert (found.name, found.listen, found.workers) == ("flag", ("/variable",), 3)


def test_the_profile_may_come_from_any_source_and_only_gives_defaults(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DIM_PROFILE", "prod")
    assert load_config(tmp_path).listen == ("/ip4/0.0.0.0/tcp/4710",)
    assert load_config(tmp_path, {"profile": "dev"}).listen == ("/ip4/127.0.0.1/tcp/4710",)
    assert load_config(tmp_path, {"listen": ["/flag"]}).listen == ("/flag",)


def test_variables_give_lists_numbers_and_truth(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DIM_BOOTSTRAP", "/a,/b,")
    monkeypatch.setenv("DIM_WORKERS", "4")
    monkeypatch.setenv("DIM_EXECUTE", "false")
    monkeypatch.setenv("DIM_TASK_TIMEOUT_SECONDS", "1.5")
    found = load_config(tmp_path)
    assert (found.bootstrap, found.workers, found.execute) == (("/a", "/b"), 4, False)
    assert found.task_timeout_seconds == 1.5


def test_a_value_that_is_none_of_the_allowed_ones_is_answered_with_those(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DIM_TORCH_DEVICE", "banana")
    said = complaint(tmp_path)
    assert said.what.endswith("`torch_device` cannot be 'banana': auto, cpu, cuda, mps")
    assert said.hint == "give torch_device such a value, or leave it out"


def test_a_wrong_key_is_named_with_its_place(tmp_path) -> None:
    (tmp_path / "config.toml").write_text("wokers = 3\n")
    said = complaint(tmp_path)
    assert said.code == "E-config-01"
    assert "wokers" in said.what
    assert "config.toml" in said.cause


def test_a_mistyped_key_is_refused_with_the_nearest_one(tmp_path) -> None:
    (tmp_path / "config.toml").write_text("wokers = 3\n")
    assert complaint(tmp_path).hint == "did you mean workers?"
    (tmp_path / "config.toml").write_text("zzz = 3\n")
    assert "task_timeout_seconds" in complaint(tmp_path).hint


def test_a_variable_that_is_no_setting_is_named_with_the_nearest_one_and_fails_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DIM_WOKERS", "3")
    assert load_config(tmp_path).workers == Config().workers
    names = ("DIM_WOKERS", "DIM_QQQ", "DIM_HOME", "DIM_WORKERS", "DIM_TEST_X")
    assert unknown_variables(dict.fromkeys(names, "1")) == [
        "DIM_QQQ is no setting and changes nothing",
        "DIM_WOKERS is no setting and changes nothing; did you mean DIM_WORKERS?",
    ]


def test_a_wrong_value_is_named_with_its_place(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DIM_WORKERS", "many")
    assert "workers" in complaint(tmp_path).what
    assert "DIM_WORKERS" in complaint(tmp_path).cause
    assert "flag" in complaint(tmp_path, {"workers": "lots"}).cause
    assert "profile" in complaint(tmp_path, {"profile": "staging", "workers": 1}).what


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("workers", 0),
        ("workers", 1000),
        ("max_concurrent_jobs", -1),
        ("max_concurrent_jobs", 10**9),
        ("task_timeout_seconds", 0),
        ("task_timeout_seconds", float("nan")),
        ("task_timeout_seconds", float("inf")),
        ("log_level", "loud"),
        ("listen", "not-a-list"),
        ("listen", [1]),
    ],
)
def test_values_out_of_range_are_refused(tmp_path, key, value) -> None:
    assert key in complaint(tmp_path, {key: value}).what


@pytest.mark.parametrize("text", ["workers = ", b"\xff\xfe", "a = 1\na = 2", f"a = {'9' * 5000}", f"a = {'[' * 5000}"])
def test_a_file_that_is_no_toml_is_named(tmp_path, text) -> None:
    (tmp_path / "config.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    said = complaint(tmp_path)
    assert said.code == "E-config-02"
    assert "config.toml" in said.what


def test_fault_points_exist_only_in_the_dev_profile(tmp_path) -> None:
    assert load_config(tmp_path, {"faults": "kill-after-commit:answer:1"}).faults
    assert complaint(tmp_path, {"faults": "kill-after-commit:answer:1", "profile": "prod"}).code == "E-config-03"


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(
    changes=st.fixed_dictionaries(
        {
            "name": TEXT,
            "listen": st.lists(TEXT, max_size=3).map(tuple),
            "bootstrap": st.lists(TEXT, max_size=3).map(tuple),
            "cache_dir": TEXT,
            "workers": st.integers(1, 8),
            "execute": st.booleans(),
            "task_timeout_seconds": st.floats(0.001, 86400),
            "profile": st.sampled_from(["dev", "prod"]),
        }
    )
)
def test_rendered_settings_read_back_the_same(changes) -> None:
    config = Config(**changes)
    assert msgspec.convert(tomllib.loads(render_config(config)), Config) == config


def test_every_setting_but_the_fault_point_is_rendered() -> None:
    shown = tomllib.loads(render_config(Config()))
    assert set(shown) == {field.encode_name for field in msgspec.structs.fields(Config)} - {"faults"}


def test_the_home_is_dim_home_or_in_the_users_folder(monkeypatch) -> None:
    monkeypatch.delenv("DIM_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/x")
    assert default_home() == Path("/x/dimnode")
    monkeypatch.setenv("DIM_HOME", "~/there")
    assert default_home() == Path("~/there").expanduser()


def test_the_socket_is_in_the_home_when_the_path_is_short() -> None:
    assert socket_path(Path("/short")) == Path("/short/control.sock")


def test_a_too_long_home_has_its_socket_in_the_runtime_directory(monkeypatch, tmp_path) -> None:
    long = tmp_path / ("h" * 100)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    assert socket_path(long).parent == Path("/run/user/1")
    assert socket_path(long) == socket_path(long) != socket_path(long.with_name("i" * 100))


def test_a_home_that_is_named_from_where_it_lies_has_the_same_socket(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    deep = tmp_path / ("h" * 100)
    deep.mkdir()
    monkeypatch.chdir(deep)
    assert socket_path(Path("node")) == socket_path(deep / "node")
    assert socket_path(Path("node")).parent == Path("/run/user/1")


def test_without_a_runtime_directory_the_socket_is_in_a_private_folder(monkeypatch, tmp_path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/" + "r" * 100)  # as useless as none
        path = socket_path(tmp_path / ("h" * 100))
        assert path.is_relative_to(short)
        assert len(os.fsencode(path)) <= 100
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert socket_path(tmp_path / ("h" * 100)) == path


@pytest.mark.parametrize("trap", ["open", "link", "file"])
def test_a_private_folder_that_somebody_else_prepared_is_refused(monkeypatch, tmp_path, trap) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        folder = socket_path(tmp_path / ("h" * 100)).parent
        folder.rmdir()
        if trap == "open":
            folder.mkdir()
            folder.chmod(0o777)
        elif trap == "link":
            (Path(short) / "mine").mkdir(mode=0o700)
            folder.symlink_to(Path(short) / "mine")
        else:
            folder.write_text("")
        with pytest.raises(ConfigError) as caught:
            socket_path(tmp_path / ("h" * 100))
        assert caught.value.complaint.code == "E-store-08"


def test_the_table_of_the_kubo_daemon_may_come_from_the_file_and_each_of_its_keys_from_a_variable(
    tmp_path, monkeypatch
) -> None:
    assert load_config(tmp_path).kubo == KuboConfig()
    (tmp_path / "config.toml").write_text('[kubo]\napi = "/ip4/127.0.0.1/tcp/5001"\nfetch = "network"\n')
    monkeypatch.setenv("DIM_KUBO_FETCH", "off")
    monkeypatch.setenv("DIM_KUBO_MODELS", "false")
    found = load_config(tmp_path).kubo
    assert (found.api, found.fetch, found.models) == ("/ip4/127.0.0.1/tcp/5001", "off", False)
    assert unknown_variables(dict.fromkeys(("DIM_KUBO_FETCH", "DIM_KUBO"), "1")) == [
        "DIM_KUBO is no setting and changes nothing; did you mean DIM_KUBO_API?"
    ]
    (tmp_path / "config.toml").unlink()
    assert load_config(tmp_path).kubo.fetch == "off"


def test_a_wrong_key_of_a_table_is_named_with_its_place(tmp_path, monkeypatch) -> None:
    (tmp_path / "config.toml").write_text("[kubo]\napu = 3\n")
    said = complaint(tmp_path)
    assert (said.cause.partition(" ")[0], said.hint) == ("kubo.apu", "did you mean api?")
    (tmp_path / "config.toml").write_text('[kubo]\nfetch = "sometimes"\n')
    assert complaint(tmp_path).cause.startswith(f"kubo.fetch was read from {tmp_path}")
    monkeypatch.setenv("DIM_KUBO_FETCH", "never")
    assert complaint(tmp_path).cause == "kubo.fetch was read from DIM_KUBO_FETCH"
    (tmp_path / "config.toml").write_text("kubo = 3\n")
    monkeypatch.delenv("DIM_KUBO_FETCH")
    assert complaint(tmp_path).code == "E-config-01"


@pytest.mark.parametrize(
    ("api", "url"),
    [
        ("/ip4/127.0.0.1/tcp/5001", "http://127.0.0.1:5001"),
        ("/ip4/127.3.2.1/tcp/5001/http", "http://127.3.2.1:5001"),
        ("/ip6/::1/tcp/5001", "http://[::1]:5001"),
        ("/dns/localhost/tcp/443/https", "https://localhost:443"),
    ],
)
def test_a_daemon_of_this_machine_is_taken_as_it_stands(tmp_path, api, url) -> None:
    (tmp_path / "config.toml").write_text(f'[kubo]\napi = "{api}"\n')
    assert api_url(load_config(tmp_path).kubo.api) == url


@pytest.mark.parametrize("api", ["/ip4/192.0.2.7/tcp/5001", "/dns/ipfs.example/tcp/443/https", "/ip4/0.0.0.0/tcp/5001"])
def test_a_daemon_elsewhere_needs_the_operators_word(tmp_path, api) -> None:
    (tmp_path / "config.toml").write_text(f'[kubo]\napi = "{api}"\n')
    assert complaint(tmp_path).code == "E-kubo-02"
    (tmp_path / "config.toml").write_text(f'[kubo]\napi = "{api}"\nremote = true\n')
    assert load_config(tmp_path).kubo.api == api


@pytest.mark.parametrize(
    "api",
    ["http://127.0.0.1:5001", "/ip4/127.0.0.1", "/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/70000", "/ip4/::1/tcp/1/x"],
)
def test_what_is_no_address_of_a_daemon_is_refused(tmp_path, api) -> None:
    (tmp_path / "config.toml").write_text(f'[kubo]\napi = "{api}"\n')
    assert complaint(tmp_path).code == "E-kubo-02"


QUOTAS = """
[quotas]
max_queued = 64
max_priority = "normal"
[quotas.peers.self]
max_queued = 1000
max_priority = "high"
[quotas.peers."12D3KooWGRUvAmvnrCVMzPAZAuVpQrt6FLYBVhQvYM1uqDvgGFmv"]
share = 2.5
"""


def test_quotas_come_from_a_table_of_the_file(tmp_path, monkeypatch) -> None:
    (tmp_path / "config.toml").write_text(QUOTAS)
    monkeypatch.setenv("DIM_QUOTAS", "junk")
    found = load_config(tmp_path).quotas
    assert (found.max_queued, found.share, found.max_priority) == (64, 1.0, "normal")
    assert found.peers["self"].max_queued == 1000
    (named,) = (quota for name, quota in found.peers.items() if name != "self")
    assert (named.share, named.max_queued) == (2.5, None)
    assert len(unknown_variables({"DIM_QUOTAS": "junk"})) == 1


def test_quotas_are_written_so_that_they_are_read_back_the_same(tmp_path) -> None:
    (tmp_path / "config.toml").write_text(QUOTAS)
    found = load_config(tmp_path)
    (tmp_path / "config.toml").write_text(render_config(found))
    assert load_config(tmp_path) == found


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("max_queued = -1", ">= 0"),
        ("share = 0", ">= 0.01"),
        ('max_priority = "urgent"', "urgent"),
        ("shares = 2", "`quotas` has no key `shares`"),
    ],
)
def test_a_wrong_quota_is_named_with_the_keys_that_exist(tmp_path, line, words) -> None:
    (tmp_path / "config.toml").write_text(f"[quotas]\n{line}\n")
    said = complaint(tmp_path)
    assert said.code == "E-config-01"
    assert words in said.what
    key = line.partition(" ")[0]
    assert said.hint in ("did you mean share?", f"give quotas.{key} such a value, or leave it out")


def test_a_quota_has_to_name_a_peer() -> None:
    me = peer_of_key(bytes(32))
    table = QuotasTable(
        max_queued=7, peers={"self": QuotaTable(share=3), peer_text(peer_of_key(b"1" * 32)): QuotaTable()}
    )
    found = quotas_of(Config(quotas=table), me)
    assert (found.of(me).share, found.of(me).queued_max, found.of(b"stranger").queued_max) == (3, 7, 7)
    with pytest.raises(ConfigError) as caught:
        check_quotas(Config(quotas=QuotasTable(peers={"alba": QuotaTable()})))
    assert caught.value.complaint.code == "E-config-10"


def test_a_file_in_the_place_of_the_home_is_told_in_words_and_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").touch()
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "rows.csv")
    said = caught.value.complaint
    assert (said.code, said.cause, said.hint) == ("E-config-02", "Not a directory", "choose another DIM_HOME")
