"""What the service manager is told, and when: the state machine's states on a real datagram socket."""

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aserver.master.core import events as ev
from aserver.master.core.model import Model
from aserver.master.journal import Record
from aserver.master.notify import EXTENSION, ServiceManager
from aserver.sockets import Kept, bind_all
from tests.harness.service_manager import FakeManager
from tests.stateful.world import World, quick

STATES = "READY=1", "RELOADING=1", "STOPPING=1"


def model_of(world: World) -> Model:
    """The state machine's state."""
    return world.master


def manager_at(fake: FakeManager, **environ: str) -> ServiceManager:
    return ServiceManager.found({"NOTIFY_SOCKET": fake.path, **environ}, os.getpid())


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_reload_and_stop_are_told_in_order(abstract: bool) -> None:
    """Fails without ServiceManager.follow."""
    with FakeManager(abstract=abstract) as fake:
        manager, world = manager_at(fake), World(quick(workers=2))
        manager.follow(model_of(world), reloading=False)
        assert fake.told_of(*STATES) == [], "no worker serves yet"
        world.start()
        manager.follow(model_of(world), reloading=False)
        manager.follow(model_of(world), reloading=False)
        assert fake.told_of(*STATES) == ["READY=1"]
        manager.reloads()
        manager.follow(model_of(world), reloading=True)
        world.send(ev.ReloadRequested(quick(workers=2), "SIGHUP"))
        manager.follow(model_of(world), reloading=False)
        assert fake.told_of(*STATES) == ["READY=1", "RELOADING=1"], "the new generation does not serve yet"
        world.run(10.0)
        manager.follow(model_of(world), reloading=False)
        world.send(ev.StopRequested(ev.StopMode.GRACEFUL, "SIGTERM"))
        manager.follow(model_of(world), reloading=False)
        assert fake.told_of(*STATES) == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
        assert f"MAINPID={os.getpid()}" in fake.told
        manager.close()


def test_each_request_to_reload_is_told_with_a_later_time() -> None:
    """`systemctl reload` waits for a RELOADING that is younger than its own signal, though a reload is under way."""
    with FakeManager() as fake:
        manager, world = manager_at(fake), World(quick(workers=1)).start()
        manager.reloads()
        assert fake.told_of(*STATES) == [], "a reload during the start must not look like its end"
        manager.follow(model_of(world), reloading=False)
        manager.reloads()
        manager.reloads()
        times = [int(line.removeprefix("MONOTONIC_USEC=")) for line in fake.read() if line.startswith("MONOTONIC_USEC")]
        assert len(times) == 2
        assert times == sorted(times)
        manager.close()


def test_a_start_and_a_stop_are_extended_and_a_server_that_serves_is_not() -> None:
    line = f"EXTEND_TIMEOUT_USEC={EXTENSION * 1_000_000}"
    with FakeManager() as fake:
        manager, world = manager_at(fake), World(quick(workers=1))
        for _ in range(2):
            manager.tend(model_of(world), reloading=False)
        boots = f"STATUS={model_of(world).server.value}: 0 of 0 workers serve"
        assert fake.told_of(line, boots) == [boots, line, line]
        world.start()
        manager.follow(model_of(world), reloading=False)
        ends = Record(number=1, time="", event="reload.ends", level="info", message="reload complete")
        manager.hear(ends)
        manager.hear(msgspec.structs.replace(ends, event="worker.died", message="died"))
        manager.tend(model_of(world), reloading=False)
        assert fake.told_of(line) == [line] * 2
        assert fake.told[-1] == "STATUS=serving: 1 of 1 workers serve, generation 1; reload complete"
        manager.close()


def test_the_watchdog_is_petted_only_while_a_worker_lives() -> None:
    """Fails without the beats in ServiceManager.sign_of_life."""
    with FakeManager() as fake:
        manager = manager_at(fake, WATCHDOG_USEC="4000000", WATCHDOG_PID=str(os.getpid()))
        manager.sign_of_life(100.0, [], needed=False)  # it starts
        manager.sign_of_life(101.0, [100.9], needed=True)  # too early
        manager.sign_of_life(102.0, [90.0, 101.9], needed=True)
        assert fake.told_of("WATCHDOG=1") == ["WATCHDOG=1"] * 2
        manager.sign_of_life(104.0, [90.0, 100.0], needed=True)  # all workers stand still
        assert fake.told_of("WATCHDOG=1") == ["WATCHDOG=1"] * 2
        manager.close()
        other = manager_at(fake, WATCHDOG_USEC="4000000", WATCHDOG_PID="1")  # meant for another process
        other.sign_of_life(100.0, [], needed=False)
        assert fake.told_of("WATCHDOG=1") == ["WATCHDOG=1"] * 2
        other.close()


def test_a_full_queue_of_the_manager_is_waited_for_without_blocking() -> None:
    with FakeManager() as fake:
        manager, filled, full = manager_at(fake), 0, False
        with contextlib.ExitStack() as blockers:
            while not full:  # a sender has a bound of its own, so it takes several of them
                blocker = blockers.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
                blocker.setblocking(False)
                before = filled
                with contextlib.suppress(BlockingIOError):
                    while True:
                        blocker.sendto(b"X=1", fake.path)
                        filled += 1
                full = filled == before
        world = World(quick(workers=1)).start()
        manager.follow(model_of(world), reloading=False)
        assert fake.read() == ["X=1"] * filled
        manager.tend(model_of(world), reloading=False)
        assert fake.told_of(*STATES) == ["READY=1"]
        manager.close()


def test_a_manager_that_is_gone_or_no_socket_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    world = World(quick(workers=1)).start()
    for path in ("/nowhere/notify", "relative", ""):
        manager = ServiceManager.found({"NOTIFY_SOCKET": path}, os.getpid())
        manager.follow(model_of(world), reloading=False)
        manager.keep(())
        manager.close()
    assert [record.getMessage().split(";")[0].split(": ")[-1] for record in caplog.records] == [
        "No such file or directory",
        "NOTIFY_SOCKET is 'relative', neither a path nor an abstract name",
    ]


def test_listeners_are_kept_and_found_again_by_their_addresses(tmp_path: Path) -> None:
    """A killed master's sockets: TCP by address, an abstract name, a path by its inode. Fails without `Kept`."""
    specs = ["127.0.0.1:0", f"unix:@{tmp_path}", f"unix:{tmp_path}/a.sock"]
    common: dict[str, Any] = {
        "uds_mode": None,
        "uds_owner": None,
        "uds_group": None,
        "reuse_port": False,
        "environ": {},
    }
    with FakeManager() as fake:
        manager = manager_at(fake)
        first = bind_all(specs, pid=1, **common)
        port = first[0].address[1]
        for listener in first:
            listener.listen(8)
        manager.keep(first)
        manager.keep(first)
        assert len(fake.read()) == 3 * 3, "each once: FDSTORE, FDNAME, FDPOLL"
        for listener in first:
            listener.socket.detach()  # as when the process is killed: nothing is unlinked
        kept = Kept.of([(os.dup(fd), name) for name, fd in fake.stored.items()])
        specs[0] = f"127.0.0.1:{port}"
        second = bind_all([*specs, "127.0.0.1:0"], pid=1, kept=kept, **common)
        inodes = [os.fstat(fd).st_ino for fd in fake.stored.values()]
        assert [os.fstat(each.socket.fileno()).st_ino for each in second[:3]] == inodes
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{tmp_path}/a.sock")
        for listener in second:
            listener.close()
        assert list(tmp_path.iterdir()) == [], "the path is this server's own again, and removed"
        manager.keep(())
        fake.read()
        assert fake.stored == {}
        manager.close()
