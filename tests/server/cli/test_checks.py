"""What keeps the server from starting, and https with a certificate that nobody signed."""

import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from helpers.served import Server
from pyggml_server.cli.checks import check_start
from pyggml_server.cli.client import NoServerError, open_client
from pyggml_server.config import Config, ConfigError

OPENSSL = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2")


def make_certificate(folder: Path, name: str) -> dict[str, str]:
    """Variables with a new pair of files."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run([*OPENSSL, "-nodes", "-subj", f"/CN={name}", *files], check=True, capture_output=True)
    return {"PYGGML_TLS_CERTIFICATE": str(certificate), "PYGGML_TLS_KEY": str(key)}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_certificate(tmp_path_factory.mktemp("tls"), "somebody.example")


def refuse(folder: Path, **variables: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check_start(Config.from_environment({"OLLAMA_MODELS": str(folder), **variables}))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_no_certificate_or_not_its_key(tmp_path: Path, pair: dict[str, str]) -> None:
    other = make_certificate(tmp_path, "other")
    junk = tmp_path / "junk"
    junk.write_text("junk")
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", pair["PYGGML_TLS_KEY"], "-aes256", "-passout", "pass:xyz", "-out", str(locked)],
        check=True,
    )
    for variables, words in (
        ({"PYGGML_TLS_KEY": other["PYGGML_TLS_KEY"]}, "is not the key of the certificate"),
        ({"PYGGML_TLS_KEY": str(junk)}, "no private key in PEM form"),
        ({"PYGGML_TLS_KEY": str(locked)}, "the key has a password"),
        ({"PYGGML_TLS_CERTIFICATE": str(junk)}, "no certificate in PEM form"),
    ):
        assert words in refuse(tmp_path, **(pair | variables))
    check_start(Config.from_environment({"OLLAMA_MODELS": str(tmp_path), **pair}))


def test_folders_paths_and_devices(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "it is no folder" in refuse(tmp_path / "file")
    assert "No such file or directory" in refuse(Path("/proc/no"))
    assert "/x is for commands" in refuse(tmp_path, OLLAMA_HOST="127.0.0.1/x")
    assert "PYGGML_TLS_CERTIFICATE" in refuse(tmp_path, OLLAMA_HOST="https://127.0.0.1")
    made = tmp_path / "not/there/yet"
    check_start(Config.from_environment({"OLLAMA_MODELS": str(made)}))
    assert made.is_dir()


def test_devices_that_are_not_there(tmp_path: Path) -> None:
    assert "no device 'Abacus7'; this installation has" in refuse(tmp_path, PYGGML_DEVICES="cpu,Abacus7")
    check_start(Config.from_environment({"OLLAMA_MODELS": str(tmp_path), "PYGGML_DEVICES": "CPU,rpc://nowhere:1"}))


def test_https(tmp_path: Path, pair: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands trust the server's own certificate, whatever name it is for; other clients only who signed it."""
    server = Server(tmp_path, OLLAMA_MODELS=str(tmp_path), PYGGML_API_KEYS="alpha", **pair)
    try:
        assert server.url.startswith("https://127.0.0.1:")
        settings = {"OLLAMA_HOST": server.url.removeprefix("https://"), "PYGGML_API_KEY": "alpha"}
        with open_client(Config.from_environment({**settings, **pair})) as client:
            assert client.get("/api/version").status_code == 200
        other = make_certificate(tmp_path, "other")
        for variables in (other, {"OLLAMA_HOST": server.url}):
            with (
                pytest.raises(NoServerError, match=r"certificate of the server at .* is not trusted"),
                open_client(Config.from_environment({**settings, **variables})) as client,
            ):
                client.get("/api/version")
        server.environment |= {"PYGGML_API_KEY": "alpha"}
        assert server.command("ps").returncode == 0
        server.environment["PYGGML_API_KEY"] = "beta"
        assert "unauthorized" in server.command("ps").stderr
        with pytest.raises(httpx2.TransportError):
            httpx2.get(server.url.replace("https", "http"))
    finally:
        server.close()


def test_commands_keep_the_path_of_a_proxy() -> None:
    source = """
import http.server, json, sys
class Proxy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"models": [], "error": self.path}).encode()
        self.send_response(200 if self.path == "/ollama/api/ps" else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.HTTPServer(("127.0.0.1", 0), Proxy)
print(server.server_port, flush=True)
server.handle_request()
"""
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as proxy:
        assert proxy.stdout is not None
        host = f"http://127.0.0.1:{int(proxy.stdout.readline())}/ollama/"
        with open_client(Config.from_environment({"OLLAMA_HOST": host})) as client:
            assert client.get("/api/ps").json()["models"] == []
        proxy.kill()
