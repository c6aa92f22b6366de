"""Loads the installed packages that a worker has loaded (`reload`), so that the next worker loads only the user's code.

Runs in the zygote of workers that load the application themselves. The first worker tells which modules it has
loaded. A child, which ends, rehearses their import: a module that leaves a thread or an open connection behind, or
wants the user's code, is left out with all that needs it. Then the zygote imports the others. It must never import a
module of the user's: it would serve the version of that moment for ever.
"""

import contextlib
import gc
import importlib
import importlib.machinery
import logging
import os
import select
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import msgspec

from aserver import unix
from aserver.importer import is_installed
from aserver.worker.relay import Relay
from aserver.zygote import native
from aserver.zygote.descriptors import descriptor_hazards

log = logging.getLogger("aserver.error")

#: The most rehearsals, each without the packages that left something behind in the rehearsal before.
REHEARSALS = 8
#: The last byte of a message.
_END = b"\n"


class LoadedModules(msgspec.Struct):
    """The names of modules in the order of their import, and the variables that the user's code set meanwhile."""

    modules: list[str]
    environ: dict[str, str]


class Teller:
    """A worker's report to its zygote: the environment is noted before the application is loaded, the rest after it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before = dict(os.environ)

    def tell(self) -> None:
        """Tell the modules that are loaded now, and close the pipe."""
        environ = {name: value for name, value in os.environ.items() if self._before.get(name) != value}
        message = msgspec.json.encode(LoadedModules(list(_installed_modules()), environ)) + _END
        with contextlib.suppress(OSError), os.fdopen(self._fd, "wb") as pipe:  # the zygote may be gone
            pipe.write(message)


def _installed_modules() -> Iterator[str]:
    """The modules of installed packages and of Python's own library; aserver's are in the zygote already."""
    library = os.path.dirname(os.__file__) + os.sep
    for name, module in list(sys.modules.items()):
        origin = getattr(getattr(module, "__spec__", None), "origin", None) or ""
        if name != "__main__" and (is_installed(origin) or origin.startswith(library)):
            yield name


class Warmth:
    """The zygote's side: reads the first worker's report, rehearses, and imports. `begun` once a worker has been asked.

    `relay` is inherited by all workers.
    """

    def __init__(self) -> None:
        self.begun = False
        self.relay = Relay()
        self.reading: int | None = None  # the pipe to poll
        self._data = b""
        self._loaded: LoadedModules | None = None
        self._left_out: set[str] = set()
        self._rehearsals = 0

    def ask(self, parents: contextlib.ExitStack) -> "Teller | None":
        """The part of the worker that is forked next, if it is to tell; `parents` is closed in this process only."""
        if self.begun:
            return None
        self.begun = True
        self.reading, told = os.pipe()
        parents.callback(os.close, told)
        return Teller(told)

    def hear(self) -> None:
        """Read the pipe, which is readable."""
        assert self.reading is not None
        data = os.read(self.reading, 1 << 16)
        self._data += data
        if data and not data.endswith(_END):
            return
        os.close(self.reading)
        self.reading, whole, self._data = None, self._data, b""
        if not whole:
            self.begun = self._loaded is not None  # that worker did not get so far: another is asked
            return
        if self._loaded is None:
            self._loaded = msgspec.json.decode(whole, type=LoadedModules)
            self._rehearse(self._loaded.modules)
        else:
            self._obey(msgspec.json.decode(whole, type=Rehearsed))

    def _obey(self, heard: "Rehearsed") -> None:
        assert self._loaded is not None
        if heard.spoilt:
            log.info("not loaded ahead: %s, which leaves %s", heard.spoilt, heard.why)
            self._left_out.add(heard.spoilt.partition(".")[0])
            if self._rehearsals < REHEARSALS:
                self._rehearse(self._loaded.modules)
            return
        for _ in _imported(heard.modules, self._loaded.environ):
            pass
        gc.collect()
        gc.freeze()
        if heard.modules:
            log.info("%d modules of installed packages are loaded ahead of the next save", len(heard.modules))

    def _rehearse(self, modules: Sequence[str]) -> None:
        assert self._loaded is not None
        self._rehearsals += 1
        wanted = [name for name in modules if name.partition(".")[0] not in self._left_out and name not in sys.modules]
        self.reading, told = os.pipe()
        if os.fork() == 0:  # noqa: TID251 - it ends at once, like the census's
            try:
                unix.signal_at_parents_end(signal.SIGKILL)  # an import may hang
                os.write(told, msgspec.json.encode(rehearse(wanted, self._loaded.environ)) + _END)
            finally:
                os._exit(0)
        os.close(told)


def wait(poll: select.poll, warmth: Warmth | None) -> None:
    """Poll, and hear the pipe of `warmth` if there is a pipe."""
    told = warmth.reading if warmth is not None else None
    if warmth is None or told is None:
        poll.poll()
        return
    poll.register(told, select.POLLIN)
    events = poll.poll()
    poll.unregister(told)
    if any(fd == told for fd, _ in events):
        warmth.hear()


class Rehearsed(msgspec.Struct):
    """The modules that can be imported; or the module that spoilt the process, and a clause about its remains."""

    modules: list[str]
    spoilt: str = ""
    why: str = ""


def rehearse(modules: Iterable[str], environ: Mapping[str, str]) -> Rehearsed:
    """Import `modules` until any of them leaves a thread or descriptor that does not survive a fork."""
    good: list[str] = []
    before = unix.open_fds()
    for name, loaded in _imported(modules, environ):
        hazards = (*_threads(), *descriptor_hazards(before, ()))
        if hazards:
            return Rehearsed([], name, hazards[0])
        if loaded:
            good.append(name)
    return Rehearsed(good)


def _threads() -> list[str]:
    others = [thread for thread in native.threads() if thread != os.getpid()]
    return ["a thread"] if others and native.survivors(others) else []


def _imported(modules: Iterable[str], environ: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    """Import each of `modules`, and tell after each whether it is there now.

    The variables are as the user's code set them before it imported the modules, and afterwards as before.
    """
    before = dict(os.environ)
    os.environ.update(environ)
    sys.meta_path.insert(0, _ONLY_INSTALLED)
    try:
        for name in modules:
            try:
                importlib.import_module(name)
            except BaseException:  # noqa: BLE001 - the module may want a setting that is not there yet
                yield name, False
            else:
                yield name, True
    finally:
        sys.meta_path.remove(_ONLY_INSTALLED)
        os.environ.clear()
        os.environ.update(before)


class _OnlyInstalled:
    """A finder that refuses modules of the user's, also those of a package that is edited in place."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> None:
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                break
        else:
            return
        origin = spec.origin or ""
        library = os.path.dirname(os.__file__) + os.sep
        if os.path.isabs(origin) and not is_installed(origin) and not origin.startswith(library):
            raise ModuleNotFoundError(f"{name} is the user's", name=name)


_ONLY_INSTALLED: Any = _OnlyInstalled()
