"""`dim init`: what it writes, what it says others will reach, and which certificates it takes."""

import argparse
import datetime
import resource
import signal
import ssl
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from dimnode.cli.init import exposed, init
from dimnode.cli.main import main
from dimnode.config import Config, load_config
from dimnode.store.certificates import check_pair, make_self_signed


def test_a_certificate_of_its_own_is_made_for_this_machine_and_used(tmp_path: Path) -> None:
    assert main(["init", "--home", str(tmp_path), "--self-signed"]) == 0
    config = load_config(tmp_path)
    certificate, key = Path(config.http_certificate), Path(config.http_private_key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    assert check_pair(certificate, key) > datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=390)


def test_a_key_of_another_certificate_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    certificate, _ = make_self_signed(tmp_path / "a", ["localhost"])
    _, key = make_self_signed(tmp_path / "b", ["localhost"])
    home = tmp_path / "home"
    pair = ["--certificate", str(certificate), "--private-key", str(key)]
    assert main(["init", "--home", str(home), "--profile", "prod", *pair]) == 2
    assert "E-http-21" in capsys.readouterr().err
    assert not (home / "config.toml").exists()
    assert main(["init", "--home", str(home), "--certificate", str(certificate)]) == 2
    assert "go together" in capsys.readouterr().err


def test_a_person_at_a_terminal_is_asked_for_certificate_files_in_profile_prod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tls").mkdir()
    certificate, key = make_self_signed(tmp_path, ["localhost"])
    answers = iter([str(certificate), str(key)])
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    chosen = {"profile": "prod", "force": False, "name": "", "listen": None, "bootstrap": None, "json": False}
    tls = {"http": "0.0.0.0:8710", "certificate": None, "private_key": None, "self_signed": False}
    home = tmp_path / "home"
    assert init(argparse.Namespace(home=home, **chosen, **tls)) == 0
    said = capsys.readouterr().out
    assert "whoever reaches 0.0.0.0:8710, TLS" in said
    assert load_config(home).http_certificate == str(certificate)


def test_what_up_would_refuse_for_want_of_tls_is_not_written_by_init(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    assert main(["init", "--home", str(home), "--http", "0.0.0.0:8710"]) == 2
    assert "E-http-23" in capsys.readouterr().err
    assert not home.exists()
    assert main(["init", "--home", str(home), "--http", "127.0.0.1:8710"]) == 0
    assert main(["init", "--home", str(home), "--http", "0.0.0.0:8710", "--self-signed", "--force"]) == 0
    monkeypatch.setenv("DIM_HTTP_INSECURE", "true")
    assert main(["init", "--home", str(tmp_path / "proxied"), "--http", "0.0.0.0:8710"]) == 0


@pytest.mark.parametrize(
    ("flag", "address", "code"),
    [
        ("--listen", "/ip4/127.0.0.1/tcp/x", "E-p2p-03"),
        ("--listen", "127.0.0.1:4710", "E-p2p-03"),
        ("--bootstrap", "/ip4/127.0.0.1/tcp/4710", "E-p2p-05"),
    ],
)
def test_addresses_that_up_would_refuse_are_not_written_by_init(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, address: str, code: str
) -> None:
    home = tmp_path / "home"
    assert main(["init", "--home", str(home), flag, address]) == 2
    assert code in capsys.readouterr().err
    assert not home.exists()


@pytest.mark.parametrize("address", ["8710", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "[::1]", "127.0.0.1:²"])
@pytest.mark.parametrize("command", ["init", "up"])
def test_a_door_without_a_port_is_refused_at_once_and_not_when_the_first_key_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, address: str
) -> None:
    home = tmp_path / "home"
    assert main([command, "--home", str(home), "--http", address]) == 2
    assert "E-http-20" in capsys.readouterr().err
    assert not home.exists()


def test_settings_that_cannot_be_written_whole_leave_the_old_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "--home", str(tmp_path), "--name", "first"]) == 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # as a disk that is full after 100 bytes
    try:
        assert main(["init", "--home", str(tmp_path), "--name", "second", "--force"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert "E-cli-21" in capsys.readouterr().err
    assert load_config(tmp_path).name == "first"


def test_settings_that_are_a_link_are_written_where_it_leads(tmp_path: Path) -> None:
    home, place = tmp_path / "home", tmp_path / "elsewhere.toml"
    home.mkdir()
    (home / "config.toml").symlink_to(place)
    assert main(["init", "--home", str(home), "--name", "linked"]) == 0
    assert (home / "config.toml").is_symlink() and 'name = "linked"' in place.read_text()
    assert not (home / "config.new").exists()


def test_what_is_exposed_is_said_in_words() -> None:
    inner = Config(listen=("/ip4/127.0.0.1/tcp/4710",))
    assert exposed(inner) == [
        "peers: nobody but this machine; Noise, no plaintext",
        "HTTP: nobody but this machine, in clear, once a key exists (dim keys new)",
    ]
    outer = Config(listen=("/ip4/0.0.0.0/tcp/4710",), http_listen="")
    assert exposed(outer) == ["peers: whoever reaches /ip4/0.0.0.0/tcp/4710; Noise, no plaintext", "HTTP: shut"]


def test_a_private_key_with_a_password_is_refused_with_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate, key = make_self_signed(tmp_path, ["localhost"])
    plain = serialization.load_pem_private_key(key.read_bytes(), None)
    form, secret = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    key.write_bytes(plain.private_bytes(serialization.Encoding.PEM, form, secret))
    pair = ["--certificate", str(certificate), "--private-key", str(key)]
    assert main(["init", "--home", str(tmp_path / "home"), *pair]) == 2
    assert "the key without a password" in capsys.readouterr().err
