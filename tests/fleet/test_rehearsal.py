"""Three hosts behind a real proxy: all replaced one after another, one with a broken deploy, one killed, under load.

`make fleet` prints what happened as a time line, and the answers of each host in each second.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.fleet.hosts import ADMIN, BRIDGE, SERVICE, Host, make_bridge
from tests.fleet.load import Load
from tests.harness.proxies import running
from tests.harness.tools import require_tool
from tests.harness.waiting import wait_for

pytestmark = [
    pytest.mark.skipif(not os.environ.get("TEST_FLEET"), reason="`make fleet` runs it"),
    pytest.mark.timeout(180),
]

HAPROXY = """
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    timeout http-keep-alive 5s
    option redispatch
    retries 3
    retry-on conn-failure empty-response
frontend fleet
    bind {bridge}:80
    default_backend hosts
backend hosts
    balance roundrobin
    option httpchk GET /readyz
    http-check expect status 200
    default-server check inter 300ms fastinter 100ms fall 1 rise 1
{servers}
"""

NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
user root;
events {{ worker_connections 512; }}
http {{
    access_log off;
    proxy_temp_path {directory}/proxy;
    client_body_temp_path {directory}/body;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream hosts {{
{servers}
        keepalive 16;
        keepalive_timeout 1s;
    }}
    server {{
        listen {bridge}:80;
        location / {{
            proxy_pass http://hosts;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_connect_timeout 2s;
        }}
    }}
}}
"""


@contextmanager
def haproxy(hosts: list[Host], directory: Path) -> Iterator[None]:
    """Asks /readyz of each host three times a second."""
    servers = "".join(f"    server {h.name} {h.address}:{SERVICE} check port {ADMIN}\n" for h in hosts)
    config = directory / "haproxy.cfg"
    config.write_text(HAPROXY.format(bridge=BRIDGE, servers=servers))
    with running([require_tool("haproxy"), "-db", "-f", str(config)], 80, directory, BRIDGE):
        yield


@contextmanager
def nginx(hosts: list[Host], directory: Path) -> Iterator[None]:
    """Learns of a host that has gone by trying it, and tries the next one."""
    servers = "".join(f"        server {h.address}:{SERVICE} max_fails=1 fail_timeout=1s;\n" for h in hosts)
    config = directory / "nginx.conf"
    config.write_text(NGINX.format(bridge=BRIDGE, servers=servers, directory=directory))
    with running([require_tool("nginx"), "-c", str(config)], 80, directory, BRIDGE):
        yield


class Rehearsal:
    """What is done to the hosts, with its time line."""

    def __init__(self, hosts: list[Host], load: Load) -> None:
        self.hosts, self.load = hosts, load
        self.line: list[tuple[float, str]] = []
        #: Failures are looked for before and after these spans: a host was killed there.
        self.killed: list[tuple[float, float]] = []

    def say(self, text: str) -> None:
        """An entry of the time line."""
        self.line.append((self.load.now, text))

    def served(self, body: str) -> None:
        """Wait until an answer says so."""
        moment = self.load.now
        wait_for(lambda: body in self.load.since(moment), what=f"an answer of {body}", explain=self.explain)

    def explain(self) -> str:
        """The time line, and the failures in it."""
        entries = [*self.line, *((at, f"FAILED {text}") for at, text in self.load.failures)]
        return "\n".join(f"{at:7.2f} s  {text}" for at, text in sorted(entries))

    def replace_all(self) -> None:
        """As a deploy tool does with machines: stop one, start it anew with other code, go on when it serves."""
        for host in self.hosts:
            self.say(f"{host.name}: SIGTERM")
            host.server.terminate()
            assert host.server.wait_exit() == 0
            host.deploy("v2")
            self.say(f"{host.name}: has left, and starts again with v2")
            host.start()
            self.served(f"{host.name} v2")
            self.say(f"{host.name}: serves v2")

    def break_one(self, host: Host) -> None:
        """A deploy that cannot be imported, then the same rolled back."""
        host.deploy("broken")
        self.say(f"{host.name}: a broken deploy, SIGHUP")
        host.server.signal(signal.SIGHUP)
        host.server.wait_log("reload failed")
        self.served(f"{host.name} v2")
        host.deploy("v3")
        self.say(f"{host.name}: v2 serves on; the next deploy is good, SIGHUP")
        host.server.signal(signal.SIGHUP)
        host.server.wait_log("reload complete")
        self.served(f"{host.name} v3")
        self.say(f"{host.name}: serves v3")

    def kill_one(self, host: Host) -> None:
        """All its processes at once; the proxy has to find out."""
        began = self.load.now
        self.say(f"{host.name}: killed")
        host.kill()
        host.server.wait_exit()
        others = {f"{each.name} " for each in self.hosts if each is not host}
        for other in others:
            moment = self.load.now
            wait_for(
                lambda moment=moment, other=other: any(b.startswith(other) for b in self.load.since(moment)),  # type: ignore[misc]
                what=f"an answer of {other}",
                explain=self.explain,
            )
        self.killed.append((began, self.load.now))
        host.start()
        self.served(f"{host.name} v2")
        self.say(f"{host.name}: back")


@pytest.fixture(scope="module")
def bridge() -> None:
    make_bridge()


@pytest.mark.parametrize("proxy", [haproxy, nginx])
@pytest.mark.usefixtures("bridge")
def test_no_request_is_lost_but_those_under_way_on_the_killed_host(proxy, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with ExitStack() as stack:
        hosts = [stack.enter_context(Host(number, tmp_path)) for number in (1, 2, 3)]
        for host in hosts:
            host.deploy("v1")
            host.start()
        stack.enter_context(proxy(hosts, tmp_path))
        load = Load((BRIDGE, 80))
        load.start()
        stack.callback(load.stop)
        rehearsal = Rehearsal(hosts, load)
        for host in hosts:
            rehearsal.served(f"{host.name} v1")
        rehearsal.replace_all()
        rehearsal.break_one(hosts[0])
        rehearsal.kill_one(hosts[1])
        load.stop()
    print(f"\n{proxy.__name__}: {len(load.answers)} answers\n{rehearsal.explain()}\n{load.plot()}")
    (begin, end), *_ = rehearsal.killed
    lost = [each for each in load.failures if begin <= each[0] <= end]
    assert [each for each in load.failures if each not in lost] == [], rehearsal.explain()
    assert len(lost) <= load.clients, "more than were under way"
