"""Real nginx, h2o and HAProxy in front of a server, one process each, that end with the block."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from tests.harness.tools import free_port, require_tool
from tests.harness.waiting import wait_for

# Started as root, nginx and h2o would serve as `nobody`, who may not enter the directory.
_NGINX = """
{user}
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {http}
}}
"""

# Without preserve-host h2o sends `Host: [unix:/path]`, which is none and is refused as such.
_H2O = """
{user}
num-threads: 1
pid-file: {directory}/h2o.pid
error-log: {directory}/error.log
listen:
  host: 127.0.0.1
  port: {port}
hosts:
  default:
    paths:
      "/":
        proxy.reverse.url: "http://{upstream}/"
        proxy.preserve-host: ON
        {more}
"""


@contextmanager
def running(command: list[str], port: int, directory: Path, host: str = "127.0.0.1") -> Iterator[int]:
    """Run a proxy until the block ends; gives its port."""
    output = directory / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)

    def listens() -> bool:
        with suppress(OSError), socket.create_connection((host, port), 1):
            return True
        return process.poll() is not None

    try:
        wait_for(listens, what=f"{command[0]} to listen", explain=output.read_text)
        assert process.poll() is None, output.read_text()
        yield port
    finally:
        process.terminate()
        process.wait()


def nginx(directory: Path, http: str, *, uid: int = 0, **values: object) -> AbstractContextManager[int]:
    """`http` is what stands in the block of that name; `{port}` in it, and `values`, are filled in.

    Started by root, it becomes `uid`.
    """
    port, config = free_port(), directory / "nginx.conf"
    user = "" if os.geteuid() else "user root;"
    config.write_text(_NGINX.format(directory=directory, user=user, http=http.format(port=port, **values)))
    become = [require_tool("setpriv"), f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
    return running([*become, require_tool("nginx"), "-c", str(config), "-p", str(directory)], port, directory)


def h2o(directory: Path, upstream: str, more: str = "") -> AbstractContextManager[int]:
    """`upstream` is `HOST:PORT` or `[unix:PATH]`; `more` is a line of settings."""
    port, config = free_port(), directory / "h2o.conf"
    user = "" if os.geteuid() else "user: root"
    config.write_text(_H2O.format(directory=directory, upstream=upstream, port=port, user=user, more=more))
    return running([require_tool("h2o"), "-c", str(config)], port, directory)
