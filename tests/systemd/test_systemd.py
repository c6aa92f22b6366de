"""deploy/aserver.service under a real systemd, as pid 1 of namespaces of its own (root.sh). Needs root; `make systemd`.

One drive, whose output is looked at afterwards: start, reload, a broken deploy, kill -9 of the master, upgrade, stop.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]

pytestmark = [
    pytest.mark.skipif(not os.environ.get("TEST_SYSTEMD"), reason="`make systemd` runs it"),
    pytest.mark.timeout(180),
]

DRIVE = """\
exec >/results/out 2>&1
show() { systemctl show aserver.service -p "$1" --value; }
ask() { curl -s -m 20 -o /dev/null -w '%{http_code}\\n' "$@"; }
outcome() { curl -s -m 20 -o /dev/null -w '%{http_code}:%{exitcode}\\n' "$@"; }
systemctl start aserver.service; echo "start $?"
echo "tcp $(ask http://127.0.0.1:8123/)"
echo "kept $(show NFileDescriptorStore)"
echo "oom $(show OOMPolicy)"
systemctl reload aserver.service; echo "reload $?"
echo "status $(show StatusText)"
echo 'raise RuntimeError("a broken deploy")' >/srv/app/app.py
systemctl reload aserver.service; echo "broken reload $?"
echo "tcp after it $(ask http://127.0.0.1:8123/)"
cp /srv/app/good.py /srv/app/app.py
for number in $(seq 60); do
    outcome http://127.0.0.1:8123/ >>/results/tcp
    outcome --unix-socket /run/aserver/web.sock http://x/ >>/results/unix
done &
sleep 0.2
kill -9 "$(show MainPID)"
wait
echo "restarts $(show NRestarts) state $(show ActiveState)"
before=$(show MainPID)
systemctl kill --kill-who=main -s USR2 aserver.service
until journal=$(show StatusText) && [[ $journal == *"upgrade complete"* ]]; do sleep 0.1; done
echo "upgrade $([[ $before == "$(show MainPID)" ]] && echo same pid)"
systemctl start web.socket inner.socket
echo "by name $(ask http://127.0.0.1:8124/) $(ask http://127.0.0.1:8125/livez) $(ask http://127.0.0.1:8125/nothing)"
systemctl stop aserver.service; echo "stop $? $(show Result) kept $(show NFileDescriptorStore)"
touch /results/end
systemctl --force --force poweroff
"""

APP = """\
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
"""


SERVICE = """\
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
TimeoutStartSec=90
ExecStart=/bin/bash /root/drive.sh
"""

#: A service of two socket units, which is started by the first client.
WEB_SOCKET = """\
[Unit]
DefaultDependencies=no
[Socket]
ListenStream=127.0.0.1:{port}
FileDescriptorName={name}
Service=web.service
"""
WEB_SERVICE = f"""\
[Unit]
DefaultDependencies=no
[Service]
Type=notify
Environment=PYTHONPATH={REPOSITORY}
WorkingDirectory=/srv/app
ExecStart={sys.executable} -m aserver run good:app --bind fd://web --admin fd://inner
Sockets=web.socket inner.socket
"""

BINDS = "--bind 127.0.0.1:8123 --bind unix:/run/aserver/web.sock"


def unit() -> str:
    """The shipped unit, with a command that is here, for root, and without the sandbox."""
    text = (REPOSITORY / "deploy" / "aserver.service").read_text("utf-8")
    for before, after in (
        ("User=app\nGroup=app\n", ""),
        ("Requires=aserver.socket\n", ""),
        ("After=network.target\n", "DefaultDependencies=no\n"),
        ("run app:asgi --workers auto", f"run app:app --workers 2 {BINDS}"),
        ("/srv/app/.venv/bin/aserver", f"{sys.executable} -m aserver"),
        ("[Service]\n", f"[Service]\nEnvironment=PYTHONPATH={REPOSITORY}\n"),
    ):
        assert before in text, f"{before!r} is not in the unit any more"
        text = text.replace(before, after)
    return re.sub(r"^(Private|Protect|System|Restrict|Capability|NoNew|Lock)\w+=.*\n", "", text, flags=re.MULTILINE)


def test_the_shipped_unit_under_systemd(tmp_path: Path) -> None:
    """Started when ready; a reload waits and fails with its outcome; a killed master refuses no client.

    With the master systemd kills its workers (KillMode=mixed), so that a request under way is lost (docs/systemd.md).

    Fails without FDSTORE (refused connections), without READY (the start does not end), without `--wait` (status 0).
    """
    units, results = tmp_path / "units", tmp_path / "results"
    (units / "app").mkdir(parents=True)
    results.mkdir()
    for name, text in {
        "aserver.service": unit(),
        "drive.service": SERVICE,
        "web.service": WEB_SERVICE,
        "web.socket": WEB_SOCKET.format(port=8124, name="web"),
        "inner.socket": WEB_SOCKET.format(port=8125, name="inner"),
        "drive.sh": DRIVE,
        "app/app.py": APP,
        "app/good.py": APP,
    }.items():
        (units / name).write_text(text, "utf-8")
    namespaces = "unshare --pid --fork --mount --net --uts --ipc --cgroup --kill-child"
    command = f"timeout -k 5 100 {namespaces} bash {HERE}/root.sh {units} {results}"
    console = tmp_path / "console"
    subprocess.run(
        ["script", "-qec", command, str(console)], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert (results / "end").exists(), console.read_text("utf-8", "replace")[-4000:]
    out = (results / "out").read_text("utf-8")
    status = "serving: 2 of 2 workers serve, generation 2; reload complete: generation 2 serves with 2 workers"
    for line in (
        "start 0",
        "tcp 200",
        "kept 2",
        "oom continue",  # systemd's own would end the service with a worker
        "reload 0",
        f"status {status}",
        "broken reload 1",
        "tcp after it 200",
        "restarts 1 state active",
        "upgrade same pid",
        "by name 200 200 404",
        "stop 0 success kept 0",
    ):
        assert re.search(f"^{line}", out, re.MULTILINE), f"{line}\n{out}"
    outcomes = [line for name in ("tcp", "unix") for line in (results / name).read_text("utf-8").split()]
    lost = [each for each in outcomes if each != "200:0"]
    assert len(outcomes) == 120
    # The clients ask by turns, so that one request at most was with a worker when systemd killed that.
    assert lost in ([], ["000:52"], ["000:56"]), "a refused client would be 7"
