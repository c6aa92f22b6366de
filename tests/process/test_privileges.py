"""Started as root, the server serves as somebody else, for good: these tests need root, as CI has it."""

import fcntl
import json
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aserver.errors import ExitCode
from tests.harness import RawConnection, ServerProcess, fetch
from tests.harness.certificates import Authority
from tests.harness.server import REPOSITORY
from tests.harness.waiting import PATIENCE

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to drop"),
    pytest.mark.usefixtures("open_tree"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc"),
]

APP = "tests.apps.connection:app"
NOBODY = pwd.getpwnam("nobody")
Start = Callable[..., ServerProcess]


def low_port() -> int:
    """A free port that only root may bind where nobody has changed the limit (ip(7))."""
    for port in range(1023, 600, -1):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.fail("no port below 1024 is free")


def rights(uid: int, gid: int, groups: list[int]) -> dict[str, Any]:
    return {"uids": [uid] * 3, "gids": [gid] * 3, "groups": groups}


def told(server: ServerProcess) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(server.fetch().body)
    for when in ("imported", "running"):
        del answer[when]["pid"]
    return answer


def test_trap_18_a_low_port_is_bound_as_root_and_the_app_imported_and_served_as_nobody(server: Start) -> None:
    port = low_port()
    running = server(APP, "--user", "nobody", "--workers", "2", "--admin", "127.0.0.1:0", bind=[f"127.0.0.1:{port}"])
    answer = told(running)
    (found,) = running.wait_log(r"admin endpoint: http://127\.0\.0\.1:(\d+)")
    assert "<title>" in fetch(("127.0.0.1", int(found[1])), "/").text
    nobody = rights(NOBODY.pw_uid, NOBODY.pw_gid, sorted({NOBODY.pw_gid, *os.getgrouplist("nobody", NOBODY.pw_gid)}))
    assert (answer["imported"], answer["running"]) == (nobody, nobody)
    below = running.zygotes() + running.workers()
    assert len(below) == 4, "the zygote, two workers, and the admin endpoint"
    for process in below:
        for field in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            assert int(process.status(field), 16) == 0, (process, field)
        assert process.status("Uid").split() == [str(NOBODY.pw_uid)] * 4
        assert process.status("Gid").split() == [str(NOBODY.pw_gid)] * 4
    assert running.stop() == ExitCode.OK


def test_a_reload_drops_again(server: Start) -> None:
    running = server(APP, "--user", "nobody", "--group", "daemon", bind=[f"127.0.0.1:{low_port()}"])
    before = told(running)
    running.signal(signal.SIGHUP)
    running.wait_for(lambda: told(running)["pid"] != before["pid"], what="the new generation's worker to answer")
    assert told(running)["imported"] == before["imported"]


@pytest.mark.parametrize(
    ("options", "uid", "gid", "more"),
    [
        (("--user", "nobody", "--group", "daemon"), "nobody", "daemon", ()),
        (("--user", "4242", "--group", "4343"), "4242", "4343", ()),  # no such accounts, as in many a container
        (("--group", "daemon"), "root", "daemon", ()),
    ],
)
def test_user_and_group_in_every_spelling(
    server: Start, options: tuple[str, ...], uid: str, gid: str, more: tuple[int, ...]
) -> None:
    expected_uid = int(uid) if uid.isdecimal() else pwd.getpwnam(uid).pw_uid
    expected_gid = int(gid) if gid.isdecimal() else pwd.getpwnam(gid).pw_gid
    running = told(server(APP, *options))["running"]
    assert running["uids"] == [expected_uid] * 3
    assert running["gids"] == [expected_gid] * 3
    assert expected_gid in running["groups"]
    assert 0 not in running["groups"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--user", "no-such-user"), "user no-such-user does not exist on this system"),
        (("--group", "no-such-group"), "group no-such-group does not exist on this system"),
        (("--user", "4242"), "user 4242 does not exist on this system; a uid without an account needs `group` as well"),
    ],
)
def test_who_does_not_exist_is_a_wrong_setting(server: Start, options: tuple[str, ...], says: str) -> None:
    running = server(APP, *options, ready=False)
    assert running.wait_exit() == ExitCode.CONFIG
    assert says in running.log


def drop_as(prologue: str, *arguments: str | None) -> str:
    """What `drop_privileges` comes to in a process that the prologue has made, and what that process then is."""
    code = f"""
import ctypes, grp, os, pwd  # now: the interpreter may lie where nobody may not look
from aserver import privileges
from aserver.errors import ConfigError
{prologue}
try:
    privileges.drop_privileges(*{arguments!r})
except ConfigError as error:
    print(error)
else:
    caps = [line.split()[1] for line in open("/proc/self/status") if line.startswith("Cap")][:3]
    print(os.getresuid(), os.getresgid(), os.getgroups(), sum(int(cap, 16) for cap in caps))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


PLAIN_NOBODY = "os.setgroups([]); os.setgid(65534); os.setuid(65534)"
#: nobody, but with CAP_SETGID (bit 6) and CAP_SETUID (bit 7), as a service manager's AmbientCapabilities= gives them.
ABLE_NOBODY = """
libc = ctypes.CDLL(None)
libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
os.setgroups([0, 1]); os.setgid(65534); os.setuid(65534)
able = (1 << 6) | (1 << 7)
assert libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(able, able, able)) == 0
"""


def test_who_may_not_change_is_told_so_and_who_need_not_is_left_alone() -> None:
    assert drop_as(PLAIN_NOBODY, "daemon", None) == (
        "cannot become user daemon, group None: Operation not permitted; start as root"
    )
    assert drop_as(PLAIN_NOBODY, "65534", "65534") == f"{(65534,) * 3} {(65534,) * 3} [] 0"


def test_root_that_stays_root_gets_its_own_groups() -> None:
    """Fails if root counts as somebody who is that user already."""
    groups = sorted(os.getgrouplist("root", pwd.getpwnam("root").pw_gid))
    code = "os.setgroups([65534])"
    assert drop_as(code, "root", None).startswith(f"{(0,) * 3} {(0,) * 3} {groups} ")


def test_capabilities_without_root_are_used_and_dropped_too() -> None:
    assert drop_as(ABLE_NOBODY, "4242", "4343") == f"{(4242,) * 3} {(4343,) * 3} [4343] 0"


def test_logs_and_sockets_keep_their_owners(server: Start, tmp_path: Path) -> None:
    private, public = tmp_path / "logs", tmp_path / "run"
    private.mkdir(mode=0o700)
    public.mkdir()
    access, path = private / "access.log", public / "a.sock"
    running = server(
        APP, "--user", "nobody", "--accesslog", str(access), "--uds-owner", "daemon", "--uds-mode", "0660",
        bind=[f"unix:{path}"],
    )  # fmt: skip
    assert running.fetch("/first").status == 200
    running.wait_for(lambda: "/first" in access.read_text(), what="the access line")
    access.rename(private / "access.log.1")
    running.signal(signal.SIGUSR1)
    running.wait_for(access.exists, what="the log to be opened again")

    def line_in_the_new_file() -> bool:
        assert running.fetch("/second").status == 200
        return "/second" in access.read_text()

    running.wait_for(line_in_the_new_file, what="an access line in the new file")
    assert {(file.stat().st_uid, file.stat().st_gid) for file in private.iterdir()} == {(0, 0)}
    assert path.stat().st_uid == pwd.getpwnam("daemon").pw_uid
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert running.stop() == ExitCode.OK
    assert list(public.iterdir()) == []


def test_keys_that_only_root_may_read_are_read_before_and_renewed_by_a_reload(server: Start, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    authority = Authority(private)
    client = authority.client()

    def shown() -> set[str]:
        with RawConnection(running.where, tls=client) as connection:
            assert connection.request().status == 200
            decoded: Any = connection.sock.getpeercert()  # type: ignore[attr-defined]
        return {value for _, value in decoded["subjectAltName"]}

    running = server(APP, "--user", "nobody", *authority.issue("localhost").options)
    assert shown() == {"localhost"}
    running.wait_log(
        rf"uid {NOBODY.pw_uid} cannot read {private}/server.pem, {private}/server.key: when it changes, a reload"
    )
    authority.issue("localhost", "renewed.test")
    running.signal(signal.SIGHUP)
    running.wait_for(lambda: "renewed.test" in shown(), what="the renewed certificate")


# ── folders of others ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("log", ["accesslog", "errorlog"])
def test_a_log_s_place_taken_by_a_link_is_not_written_to(server: Start, tmp_path: Path, log: str) -> None:
    """By the user that the app runs as, in a folder of its own, before a rotation (USR1). Fails with os.open()."""
    theirs, victim = tmp_path / "logs", tmp_path / "victim"
    theirs.mkdir()
    os.chown(theirs, NOBODY.pw_uid, NOBODY.pw_gid)
    victim.touch()
    path = theirs / "log"
    running = server(APP, "--user", "nobody", f"--{log}", str(path), ready=False)
    running.wait_for(lambda: path.exists() and (log == "accesslog" or "ready" in path.read_text()), what="the log")
    if log == "accesslog":
        running.wait_ready()
    path.rename(theirs / "log.1")
    path.symlink_to(victim)
    os.lchown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    running.signal(signal.SIGUSR1)
    said = rf"{log} {path} cannot be opened: a symbolic link on the way was made by uid {NOBODY.pw_uid}.*old file"
    if log == "accesslog":
        running.wait_log(said)
    else:
        running.wait_for(lambda: re.search(said, (theirs / "log.1").read_text()), what="the refusal in the old file")
    running.signal(signal.SIGINT)
    assert running.wait_exit() == ExitCode.OK
    assert victim.read_text() == ""


def test_a_reload_opens_no_log_through_another_s_link(server: Start, tmp_path: Path) -> None:
    """A new path in the settings (HUP), which the user has taken before. Fails with os.open()."""
    theirs, victim, settings = tmp_path / "logs", tmp_path / "victim", tmp_path / "aserver.toml"
    theirs.mkdir()
    os.chown(theirs, NOBODY.pw_uid, NOBODY.pw_gid)
    victim.touch()
    (theirs / "log").symlink_to(victim)
    os.lchown(theirs / "log", NOBODY.pw_uid, NOBODY.pw_gid)
    settings.write_text("")
    running = server(APP, "--user", "nobody", "-c", str(settings))
    settings.write_text(f'accesslog = "{theirs}/log"')
    running.signal(signal.SIGHUP)
    running.wait_log(r"reload \(SIGHUP\) refused.*: accesslog .* cannot be opened: a symbolic link on the way was made")
    assert running.fetch().status == 200
    assert victim.read_text() == ""


def test_dev_null_is_no_pidfile_and_stays(server: Start) -> None:
    """Fails with it removed, for the whole system."""
    running = server(APP, "--pidfile", "/dev/null", ready=False)
    assert running.wait_exit() == ExitCode.CONFIG
    assert "pidfile /dev/null is no regular file; it is left alone" in running.log
    assert Path("/dev/null").is_char_device()
    assert not Path("/dev/.null~").exists()


def test_others_locks_hinder_no_start(server: Start, tmp_path: Path) -> None:
    """On the socket's folder and on the pidfile, which everybody may read. Fails with locks on what others can open."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "pid").write_text("4711\n")
    held = [os.open(each, os.O_RDONLY) for each in (folder, folder / "pid")]
    try:
        for fd in held:
            fcntl.flock(fd, fcntl.LOCK_EX)
        running = server(APP, "--pidfile", str(folder / "pid"), bind=[f"unix:{folder}/a.sock"])
        assert running.fetch().status == 200
        assert running.stop() == ExitCode.OK
    finally:
        for fd in held:
            os.close(fd)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGUSR2])
def test_settings_that_the_user_can_change_now_are_not_read_again(
    server: Start, tmp_path: Path, how: signal.Signals
) -> None:
    """Refused before a Python file runs as root, though it may say another user. Fails without the look in the master:
    what is in the file is obeyed, and here it would run.
    """
    theirs, ran = tmp_path / "settings", tmp_path / "ran"
    theirs.mkdir()
    settings = theirs / "aserver.py"
    settings.write_text("user = 'nobody'")
    running = server(APP, "-c", str(settings))
    os.chown(theirs, NOBODY.pw_uid, NOBODY.pw_gid)
    settings.write_text(f"open({str(ran)!r}, 'w'); user = 'root'")
    running.signal(how)
    what = "reload" if how is signal.SIGHUP else "upgrade"
    running.wait_log(rf"{what} \({how.name}\) refused, everything stays as it is: config .*user nobody .* may change")
    assert not ran.exists()
    assert told(running)["running"]["uids"] == [NOBODY.pw_uid] * 3


def test_settings_that_appear_in_the_user_s_folder_are_not_obeyed(server: Start, tmp_path: Path) -> None:
    """A server without a settings file, in a folder of the application's. Fails if only a named file is looked at."""
    theirs = tmp_path / "app"
    theirs.mkdir()
    os.chown(theirs, NOBODY.pw_uid, NOBODY.pw_gid)
    running = server(APP, "--app-dir", str(REPOSITORY), cwd=theirs, env={"ASERVER_USER": "nobody"})
    (theirs / "aserver.toml").write_text('user = "root"\nworkers = 2')
    running.signal(signal.SIGHUP)
    running.wait_log(r"reload \(SIGHUP\) refused, everything stays as it is: config .*aserver.toml: user nobody")
    assert running.fetch().status == 200


# ── the same rights wherever the application's code runs ─────────────────────────────────────


def test_check_drops_before_it_imports() -> None:
    """Import and lifespan run with the rights of `user`, as under `run`. Fails without the drop in `check`."""
    result = subprocess.run(
        [sys.executable, "-m", "aserver", "check", "tests.apps.whoami:app", "-u", "nobody"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=REPOSITORY,
        check=False,
    )
    assert result.returncode == ExitCode.OK, result.stderr
    told = [line.split(": ")[1] for line in result.stderr.splitlines() if line.startswith("whoami ")]
    ids = f"{NOBODY.pw_uid} {NOBODY.pw_gid} {sorted({NOBODY.pw_gid, *os.getgrouplist('nobody', NOBODY.pw_gid)})}"
    assert told == [ids, ids, ids], "at import, at startup, at shutdown"


def test_config_and_the_preflight_import_no_application() -> None:
    """`aserver config` and the child that tries an upgrade are root, and load only settings."""
    for environ in ({}, {"_ASERVER_PREFLIGHT": "0"}):
        command = "run" if environ else "config"
        result = subprocess.run(
            [sys.executable, "-m", "aserver", command, "tests.apps.whoami:app", "-u", "nobody"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd=REPOSITORY,
            env={**os.environ, **environ},
            check=False,
        )
        assert "whoami" not in result.stderr
        assert result.returncode == (ExitCode.CONFIG if environ else ExitCode.OK)  # 0 is no schema


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_hooks_are_defined_and_run_as_the_user(server: Start, tmp_path: Path, mode: int) -> None:
    """The settings file is read as root and runs as `user` in the zygote. Fails with the file run before the drop, and,
    for a file that only root may read, with the file read after it.
    """
    settings = tmp_path / "settings.py"
    settings.write_text(
        "import os, sys\n"
        "print('defined by', os.getuid(), file=sys.stderr)\n"
        "def on_starting(server):\n    print('run by', os.getuid(), file=sys.stderr)\n"
    )
    settings.chmod(mode)
    running = server(APP, "--user", "nobody", "-c", str(settings))
    running.wait_log(rf"run by {NOBODY.pw_uid}")
    assert f"defined by {NOBODY.pw_uid}" in running.log
    assert running.log.count("defined by 0") == 1, "by the child that tells the master its settings"
