"""Behind real nginx, HAProxy, h2o and Caddy: the application sees the client, whatever the client claims to be.

The client of all tests is 127.0.0.9, which is not in `forwarded_allow_ips`, while the proxies speak from 127.0.0.1 or
over a unix socket.
"""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Load, RawConnection, ServerProcess, fetch, free_port, require_tool, wait_for
from tests.harness.proxies import h2o, nginx, running

pytestmark = [pytest.mark.process, pytest.mark.external]

APP = "tests.apps.seen:app"
Start = Callable[..., ServerProcess]

TWO = ("--workers", "2")
DEPLOY = Path(__file__).parents[2] / "deploy"
CLIENT = "127.0.0.9"
SPOOF = {
    "X-Forwarded-For": "6.6.6.6, 127.0.0.1",
    "X-Forwarded-Proto": "https",
    "Forwarded": "for=6.6.6.6;proto=https;host=evil.example",
    "X_Forwarded_For": "6.6.6.6",
}

NGINX = """
    upstream aserver {{ server {upstream}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://aserver/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Port $server_port;
        }}
        location /app/ {{
            proxy_pass http://aserver/;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto https;
            proxy_set_header X-Forwarded-Host shop.example;
            proxy_set_header X-Forwarded-Prefix /app;
        }}
        location /rfc/ {{
            proxy_pass http://aserver/;
            proxy_set_header X-Forwarded-For "";
            proxy_set_header Forwarded "$http_forwarded, for=$remote_addr;proto=$scheme;host=shop.example";
        }}
    }}
"""

HAPROXY = """
defaults
    mode {mode}
    timeout connect 5s
    timeout client 20s
    timeout server 20s
frontend front
    bind 127.0.0.1:{port}
    default_backend back
backend back
    {options}
    server one {upstream} {send}
"""


def haproxy(
    directory: Path, upstream: str, *, mode: str, send: str = "", options: str = ""
) -> AbstractContextManager[int]:
    port, config = free_port(), directory / "haproxy.cfg"
    config.write_text(HAPROXY.format(upstream=upstream, port=port, mode=mode, send=send, options=options))
    return running([require_tool("haproxy"), "-db", "-f", str(config)], port, directory)


def ask(port: int, path: str = "/x", headers: dict[str, str] | None = None, body: bytes = b"") -> dict[str, Any]:
    """One request from CLIENT; what the application saw."""
    with RawConnection(("127.0.0.1", port)) as connection:
        connection.sock.close()
        connection.sock = socket.create_connection(("127.0.0.1", port), 20, source_address=(CLIENT, 0))
        fields = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        method = "POST" if body else "GET"
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        connection.send(f"{method} {path} HTTP/1.1\r\nHost: site.example\r\n{length}{fields}\r\n".encode() + body)
        response = connection.read_response()
    assert response.status == 200, response
    told: dict[str, Any] = json.loads(response.body)
    return told


def header(told: dict[str, Any], name: str) -> str:
    (value,) = [value for key, value in told["headers"] if key == name]
    return str(value)


@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_nginx(server: Start, tmp_path: Path, over: str) -> None:
    path = tmp_path / "a.sock"
    bind = [f"unix:{path}" if over == "unix" else "127.0.0.1:0"]
    started = server(APP, "--forwarded-allow-ips", "127.0.0.1,unix", bind=bind)
    upstream = f"unix:{path}" if over == "unix" else f"127.0.0.1:{started.where[1]}"
    with nginx(tmp_path, NGINX, upstream=upstream) as port:
        for spoofed in ({}, SPOOF):
            told = ask(port, headers=spoofed, body=b"abc")
            assert told["client"] == [CLIENT, 0]
            assert told["scheme"] == "http"
            assert header(told, "host") == f"site.example:{port}"
            assert told["size"] == 3
            told = ask(port, "/app/a%20b", headers=spoofed)
            assert (told["client"], told["scheme"]) == ([CLIENT, 0], "https")
            assert header(told, "host") == "shop.example"
            assert (told["root_path"], told["path"]) == ("/app", "/app/a b")
            told = ask(port, "/rfc/a", headers=spoofed)
            assert (told["client"], told["scheme"]) == ([CLIENT, 0], "http")
            assert header(told, "host") == "shop.example"


def test_the_nginx_configuration_that_we_ship(server: Start, tmp_path: Path) -> None:
    """It passes on nothing that a client claims. Fails without its empty `proxy_set_header` lines."""
    path = tmp_path / "a.sock"
    started = server(APP, *TWO, bind=[f"unix:{path}"])
    text = (DEPLOY / "nginx.conf").read_text().replace("{", "{{").replace("}", "}}")
    text = shipped(text, {"unix:/run/aserver.sock": "unix:{path}", "listen 80;": "listen 127.0.0.1:{port};"})
    with nginx(tmp_path, text, path=path) as port:
        told = believes_no_claim(port)
        assert not any(name in ("connection", "upgrade") for name, _ in told["headers"])
        reload_costs_nothing(started, port)


def shipped(text: str, places: Mapping[str, object]) -> str:
    """A configuration of deploy/ with the places of this test, each of which stands there once."""
    for ours, mine in places.items():
        assert text.count(ours) == 1
        text = text.replace(ours, str(mine))
    return text


def reload_costs_nothing(started: ServerProcess, port: int) -> None:
    """Clients of the proxy see no failure while both workers are replaced. Fails where a drain cuts connections."""
    where = "127.0.0.1", port
    with Load(where) as kept, Load(where, connections=2, keep_alive=False) as once:
        for load in (kept, once):
            load.wait_for_more(20)
        started.signal(signal.SIGHUP)
        started.wait_log("reload complete")
        started.wait_log("has left after", count=2)
        for load in (kept, once):
            load.wait_for_more(20)
    kept.outcome.check()
    once.outcome.check()


def believes_no_claim(port: int) -> dict[str, Any]:
    """The application sees the client as it is, with all that a client may claim, and without; returns what it saw."""
    claims = SPOOF | {f"X-Forwarded-{name}": "6666" for name in ("Host", "Port")} | {"X-Forwarded-Prefix": "/evil"}
    told: dict[str, Any] = {}
    for claimed in ({}, claims):
        told = ask(port, headers=claimed, body=b"abc")
        assert (told["client"], told["scheme"], told["size"]) == ([CLIENT, 0], "http", 3)
        assert (header(told, "host"), told["root_path"], told["path"]) == ("site.example", "", "/x")
    return told


def test_the_haproxy_configuration_that_we_ship(server: Start, tmp_path: Path) -> None:
    """And it asks /readyz. Fails without the lines that take fields of clients away."""
    haproxy = require_tool("haproxy")
    checked = subprocess.run([haproxy, "-c", "-f", DEPLOY / "haproxy.cfg"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    path, port, config = tmp_path / "a.sock", free_port(), tmp_path / "haproxy.cfg"
    started = server(APP, *TWO, "--admin", "127.0.0.1:0", "--drain-delay", "60", bind=[f"unix:{path}"])
    (admin,) = started.wait_log(r"admin endpoint: http://127\.0\.0\.1:(\d+)")
    where = "127.0.0.1", int(admin[1])
    wait_for(lambda: fetch(where, "/readyz").status == 200, what="the admin endpoint to have heard of the server")
    places = {"unix@/run/aserver.sock addr 127.0.0.1 port 9100": f"unix@{path} addr 127.0.0.1 port {admin[1]}"}
    text = shipped((DEPLOY / "haproxy.cfg").read_text(), {**places, "bind :80": f"bind 127.0.0.1:{port}"})
    config.write_text(text)
    with running([haproxy, "-db", "-f", str(config)], port, tmp_path):
        believes_no_claim(port)
        reload_costs_nothing(started, port)
        started.signal(signal.SIGTERM)
        wait_for(lambda: fetch(("127.0.0.1", port)).status == 503, what="HAProxy to look away")
        assert fetch(str(path)).status == 200, "the server goes on accepting until all have looked away"


def test_the_caddyfile_that_we_ship(server: Start, tmp_path: Path) -> None:
    """Fails without the lines that take fields of clients away."""
    caddy, environ = require_tool("caddy"), {**os.environ, "HOME": str(tmp_path)}
    command = [caddy, "validate", "--adapter", "caddyfile", "--config", str(DEPLOY / "Caddyfile")]
    checked = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert (checked.returncode, '"level":"warn"' in checked.stderr) == (0, False), checked.stderr
    path, port, config = tmp_path / "a.sock", free_port(), tmp_path / "Caddyfile"
    started = server(APP, *TWO, bind=[f"unix:{path}"])
    places = {"example.org {": f"http://:{port} {{\n\tbind 127.0.0.1", "unix//run/aserver.sock": f"unix/{path}"}
    config.write_text("{\n\tadmin off\n}\n" + shipped((DEPLOY / "Caddyfile").read_text(), places))
    home = f"HOME={tmp_path}"
    with running(["env", home, caddy, "run", "--adapter", "caddyfile", "--config", str(config)], port, tmp_path):
        believes_no_claim(port)
        reload_costs_nothing(started, port)


def test_the_h2o_configuration_that_we_ship(server: Start, tmp_path: Path) -> None:
    """It keeps the Host, and sees to it that the application sees the client. Fails without `proxy.preserve-host`."""
    path, port, config = tmp_path / "a.sock", free_port(), tmp_path / "h2o.conf"
    started = server(APP, *TWO, bind=[f"unix:{path}"])
    places = {"port: 80": f"host: 127.0.0.1\n  port: {port}", "/run/aserver.sock": path}
    user = "" if os.geteuid() else "user: root\n"
    config.write_text(f"{user}num-threads: 1\n" + shipped((DEPLOY / "h2o.conf").read_text(), places))
    with running([require_tool("h2o"), "-c", str(config)], port, tmp_path):
        told = ask(port, headers=SPOOF, body=b"abc")
        assert (told["client"], told["size"], header(told, "host")) == ([CLIENT, 0], 3, "site.example")
        reload_costs_nothing(started, port)


def test_two_proxies_in_a_row(server: Start, tmp_path: Path) -> None:
    """HAProxy, then nginx: the client is two hops away."""
    started = server(APP, "--forwarded-allow-ips", "127.0.0.1")
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    inner.mkdir()
    outer.mkdir()
    with (
        nginx(inner, NGINX, upstream=f"127.0.0.1:{started.where[1]}") as port,
        haproxy(outer, f"127.0.0.1:{port}", mode="http", options="option forwardfor") as front,
    ):
        assert ask(front)["client"] == [CLIENT, 0]
        assert ask(front, headers=SPOOF)["client"] == [CLIENT, 0]


@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_h2o(server: Start, tmp_path: Path, over: str) -> None:
    path = tmp_path / "a.sock"
    bind = [f"unix:{path}" if over == "unix" else "127.0.0.1:0"]
    started = server(APP, "--forwarded-allow-ips", "127.0.0.1,unix", bind=bind)
    upstream = f"[unix:{path}]" if over == "unix" else f"127.0.0.1:{started.where[1]}"
    with h2o(tmp_path, upstream) as port:
        assert ask(port)["client"] == [CLIENT, 0]
        told = ask(port, headers=SPOOF, body=b"abc")
        assert (told["client"], told["size"]) == ([CLIENT, 0], 3)


@pytest.mark.parametrize(
    ("send", "accepted"), [("send-proxy", "v1"), ("send-proxy-v2", "v2"), ("send-proxy-v2", "auto")]
)
def test_haproxy_with_the_proxy_protocol(server: Start, tmp_path: Path, send: str, accepted: str) -> None:
    """The client speaks HTTP to us through it, so its own X-Forwarded-For is nobody's we trust."""
    started = server(APP, "--forwarded-allow-ips", "127.0.0.1", "--proxy-protocol", accepted)
    with haproxy(tmp_path, f"127.0.0.1:{started.where[1]}", mode="tcp", send=send) as port:
        for spoofed in ({}, SPOOF):
            told = ask(port, headers=spoofed, body=b"abc")
            assert told["client"][0] == CLIENT
            assert told["client"][1] > 0
            assert (told["scheme"], told["size"]) == ("http", 3)


def test_haproxy_in_http_mode_with_the_proxy_protocol(server: Start, tmp_path: Path) -> None:
    started = server(APP, "--forwarded-allow-ips", "127.0.0.1", "--proxy-protocol", "v2")
    with haproxy(tmp_path, f"127.0.0.1:{started.where[1]}", mode="http", send="send-proxy-v2") as port:
        assert ask(port)["client"][0] == CLIENT


def test_who_is_no_proxy_is_not_believed(server: Start) -> None:
    started = server(APP, "--forwarded-allow-ips", "10.0.0.0/8")
    told = json.loads(fetch(started.where, "/", headers=SPOOF).body)
    assert told["client"][0] == "127.0.0.1"
    assert told["scheme"] == "http"
