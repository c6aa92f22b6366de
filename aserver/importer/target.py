"""Import a target; if that fails, the error names the very part that is missing.

Runs in the zygote, in lazy workers and in `aserver check`; never in the master. It runs the code of the user's module,
and turns each exception of it into an AppLoadError. It changes sys.path, and nothing else.
"""

import contextlib
import importlib
import importlib.util
import inspect
import logging
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from aserver import loading
from aserver.errors import AppLoadError
from aserver.importer import interface as interfaces
from aserver.importer.tracebacks import user_frames, user_traceback
from aserver.wsgi.application import WSGIApplication

log = logging.getLogger("aserver.error")

_MISSING = object()

#: Attributes that a target without an attribute may mean with `factory`: the name in Flask's documents.
_DEFAULT_FACTORY_NAMES = ("create_app",)


@dataclass(frozen=True, slots=True)
class LoadedApp:
    """A loaded app, and the interface that it speaks. A call of an ASGI app returns a coroutine.

    `wsgi` is the ASGI application around a WSGI app; `importer.application` makes it.
    """

    app: Callable[..., Any]
    interface: interfaces.Interface
    target: str
    wsgi: WSGIApplication | None = None


def load(
    target: str,
    *,
    factory: bool = False,
    app_dir: str = ".",
    interface: Literal["auto", "asgi", "wsgi"] = "auto",
) -> LoadedApp:
    """Import `target` ("module:attribute", "module:dotted.attribute" or "module") and make it servable.

    `factory`: the attribute is a function without arguments that returns the app. `app_dir` is put first on
    sys.path. `interface` "auto" looks at the app's signature. Raises AppLoadError, also for SystemExit and
    KeyboardInterrupt out of the user's module; its `detail` is the user's own traceback.
    """
    module_name, attribute = _split(target)
    place = _put_on_path(app_dir)
    module = _import(module_name, place)
    full_name, found = _find(module, module_name, attribute, factory=factory)
    return adapt(found, full_name, interface, factory=factory)


def adapt(
    app: object, name: str, interface: Literal["auto", "asgi", "wsgi"] = "auto", *, factory: bool = False
) -> LoadedApp:
    """Make an app object servable, which speaks ASGI or WSGI, or, as a `factory`, returns such an object.

    Errors call it `name`. Raises AppLoadError.
    """
    if factory:
        with loading.application_code():
            app = _call_factory(app, name)
        name += "()"
    spoken = interfaces.recognise(app, name) if interface == "auto" else _trust(app, name, interface)
    servable: Any = interfaces.as_coroutine_app(app) if spoken == "asgi" else app
    return LoadedApp(app=servable, interface=spoken, target=name)


def load_object(target: str, *, app_dir: str = ".") -> object:
    """The object that `target` names, such as a hook, unchanged. Raises AppLoadError like `load`."""
    module_name, attribute = _split(target)
    return _find(_import(module_name, _put_on_path(app_dir)), module_name, attribute, factory=False)[1]


def _split(target: str) -> tuple[str, str]:
    module_name, colon, attribute = target.partition(":")
    if attribute.endswith(")") and "(" in attribute:
        name = attribute.partition("(")[0]
        raise AppLoadError(
            f"target {target!r} is a call, and targets are only names; "
            f"a function without arguments that returns the app is given as {module_name}:{name} --factory"
        )
    if "/" in module_name or module_name.endswith(".py"):
        path = Path(module_name)
        here = f"{path.stem}:{attribute or 'app'}"
        hint = here if path.parent == Path() else f"{here} --app-dir {path.parent}"
        raise AppLoadError(f"target {target!r} names a file, and targets name a module; did you mean {hint}?")
    names = [*module_name.split("."), *(attribute.split(".") if colon else ())]
    if not all(name.isidentifier() for name in names):
        raise AppLoadError(
            f"target {target!r} is not of the form module:attribute, such as main:app or pkg.web:api.app"
        )
    return module_name, attribute


def _put_on_path(app_dir: str) -> Path:
    """The last of the places in `app_dir`, which all come first on sys.path in their order.

    Several have commas between them, as in gunicorn's pythonpath; there a place that is missing is passed over.
    """
    *others, last = [app_dir] if Path(app_dir).is_dir() else app_dir.split(",")
    place = _put_one_on_path(last)
    for each in reversed(others):
        if Path(each).is_dir():
            _put_one_on_path(each)
        else:
            log.warning("app_dir names %s, which is not a directory and is not put on sys.path", each)
    return place


def _put_one_on_path(app_dir: str) -> Path:
    place = Path(app_dir).resolve()
    if _is_hidden(place):
        raise AppLoadError(
            f"app_dir {app_dir!r} ({place}) may not be read by uid {os.geteuid()}, so no app can be imported from it"
        )
    if not place.is_dir():
        raise AppLoadError(f"app_dir {app_dir!r} ({place}) is not a directory, so no app can be imported from it")
    sys.path[:] = [str(place), *(entry for entry in sys.path if entry != str(place))]
    # A deploy may have written files within the granularity of the directory times that finders cache. Not
    # importlib.invalidate_caches(): since 3.12 it imports importlib.metadata, which takes 10 ms, from a
    # Python that the user to whom the rights were dropped may not be allowed to read.
    sys.path_importer_cache.pop(str(place), None)
    return place


def _import(module_name: str, place: Path) -> ModuleType:
    try:
        with loading.application_code():
            return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        frames = user_frames(error)
        if not frames and error.name is not None and _is_part(error.name, module_name):
            raise AppLoadError(_missing_module_text(module_name, error.name, place) + _hidden_text()) from error
        where = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "a package above it"
        raise AppLoadError(
            f"module {module_name!r} exists, but something it imports is missing: {error.msg} ({where})"
            + _hidden_text(),
            user_traceback(error),
        ) from error
    except BaseException as error:
        raise _user_code_failed(f"importing module {module_name!r}", error, place) from error


def _is_hidden(place: str | Path) -> bool:
    try:
        os.listdir(place)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _hidden_text() -> str:
    """The places of sys.path that this user may not read, as a clause: `import` passes over them without a word.

    Usually it is `user` together with an app or a Python below /root.
    """
    hidden = [entry for entry in sys.path if _is_hidden(entry or ".")]
    return f"; uid {os.geteuid()} may not read {', '.join(hidden)} of sys.path" if hidden else ""


def _is_part(missing: str, module_name: str) -> bool:
    return module_name == missing or module_name.startswith(missing + ".")


def _user_code_failed(doing: str, error: BaseException, place: Path | None = None) -> AppLoadError:
    if isinstance(error, SystemExit):
        what = f"called sys.exit({error.code!r})"
    elif isinstance(error, KeyboardInterrupt):
        what = "was interrupted (KeyboardInterrupt)"
    elif isinstance(error, AppLoadError):  # `loading.refuse_nested`
        what = f"is refused: {error}"
    elif "DJANGO_SETTINGS_MODULE" in str(error) and not os.environ.get("DJANGO_SETTINGS_MODULE"):
        what = f"found no settings: DJANGO_SETTINGS_MODULE is not set; {_settings_text(place or Path())}"
    else:
        message = str(error).partition("\n")[0]
        what = f"raised {type(error).__name__}" + (f": {message}" if message else "")
    return AppLoadError(f"{doing} {what}", user_traceback(error))


def _settings_text(place: Path) -> str:
    """The setting that names Django's settings, with the module that the project's own manage.py takes."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        manage = (place / "manage.py").read_text(encoding="utf-8")
        if named := re.search(r"""["']DJANGO_SETTINGS_MODULE["'],\s*["']([\w.]+)["']""", manage):
            return f"try -e DJANGO_SETTINGS_MODULE={named[1]}"
    return "give it by -e DJANGO_SETTINGS_MODULE=package.settings"


def _missing_module_text(module_name: str, missing: str, place: Path) -> str:
    parent, _, leaf = missing.rpartition(".")
    if parent:
        package = sys.modules.get(parent)
        paths = list(getattr(package, "__path__", ()))
        if not paths:
            return f"no module {missing!r}: {parent!r} is a module, not a package, so nothing can be inside it"
        text = f"no module {leaf!r} in package {parent!r} ({', '.join(paths)})"
        return text + _nearest_text(leaf, (found.name for found in pkgutil.iter_modules(paths)))
    text = f"no module {missing!r} in app_dir {place} nor elsewhere on sys.path"
    elsewhere = _other_home(missing, place)
    if elsewhere is not None:
        return f"{text}; there is {elsewhere.name} in {elsewhere.parent}: try --app-dir {elsewhere.parent}"
    if module_name == missing and hasattr(sys.modules.get("__main__"), missing):
        text += " (it is a name in the main program, which cannot be imported by its name)"
    return text + _nearest_text(missing, (found.name for found in pkgutil.iter_modules([str(place)])))


def _other_home(name: str, place: Path) -> Path | None:
    """A file or package of that name in the working directory, directly above `place`, or directly below."""
    try:
        below = sorted(child for child in place.iterdir() if child.is_dir() and not child.name.startswith("."))
    except OSError:
        below = []
    for directory in (Path.cwd(), place.parent, *below):
        for candidate in (directory / f"{name}.py", directory / name / "__init__.py"):
            if candidate.is_file():
                return candidate if candidate.suffix == ".py" and candidate.stem == name else candidate.parent
    return None


def _nearest_text(wanted: str, names: Iterable[str]) -> str:
    import difflib  # noqa: PLC0415 - rarely needed, and each start waits for imports

    nearest = difflib.get_close_matches(wanted, list(names), n=1, cutoff=0.6)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def _find(module: ModuleType, module_name: str, attribute: str, *, factory: bool) -> tuple[str, object]:
    """The full name of the object that the target names, and the object."""
    if not attribute:
        names = _DEFAULT_FACTORY_NAMES if factory else interfaces.DEFAULT_NAMES
        for name in names:
            found = _get(module, name, f"{module_name}:{name}")
            if found is not _MISSING and not isinstance(found, ModuleType):
                return f"{module_name}:{name}", found
        wanted = " or ".join(repr(name) for name in names)
        raise AppLoadError(f"no attribute {wanted} in module {module_name!r}{_callables_text(module, names[0])}")
    full_name = module_name + ":"
    found, holder = module, f"module {module_name!r}"
    for name in attribute.split("."):
        step = _get(found, name, full_name + name)
        if step is _MISSING:
            raise AppLoadError(_missing_attribute_text(found, name, holder))
        full_name += name
        found, holder = step, full_name
        full_name += "."
    return full_name.rstrip("."), found


def _get(holder: object, name: str, full_name: str) -> Any:
    try:
        return getattr(holder, name, _MISSING)
    except BaseException as error:  # a module's __getattr__ or a property: user code
        raise _user_code_failed(f"reading {full_name}", error) from error


def _missing_attribute_text(holder: object, name: str, holder_name: str) -> str:
    text = f"no attribute {name!r} in {holder_name}"
    if isinstance(holder, ModuleType) and hasattr(holder, "__path__"):
        submodule = f"{holder.__name__}.{name}"
        if importlib.util.find_spec(submodule) is not None:
            return f"{text}; there is a module {submodule!r}: did you mean {submodule}:app?"
    return text + _callables_text(holder, name)


def _callables_text(holder: object, wanted: str) -> str:
    """Objects that may have been meant, as a clause: apps first, then functions; no classes and no imported names."""
    public = {name: value for name, value in vars(holder).items() if name[0] != "_"} if _has_vars(holder) else {}
    here = getattr(holder, "__name__", None)
    names = [
        name
        for name, value in sorted(public.items(), key=lambda item: inspect.isroutine(item[1]))
        if callable(value)
        and not inspect.isclass(value)
        and (not inspect.isroutine(value) or getattr(value, "__module__", None) == here)
    ]
    nearest = _nearest_text(wanted, public)
    if not names:
        return nearest or "; it holds nothing that could be an app"
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f" (found: {shown}){nearest}"


def _has_vars(holder: object) -> bool:
    return hasattr(holder, "__dict__")


def _call_factory(factory: Any, name: str) -> object:
    interfaces.refuse_no_app(factory, name)
    if interfaces.is_coroutine_callable(factory):
        raise AppLoadError(_coroutine_factory_text(factory, name))
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise AppLoadError(
            f"{name} cannot be called as a factory, without arguments ({error}); "
            "if it is the app itself, drop --factory"
        ) from None
    except ValueError:
        pass  # compiled, without a signature: the call below tells
    try:
        app: object = factory()
    except BaseException as error:
        raise _user_code_failed(f"factory {name}()", error) from error
    if app is None:
        raise AppLoadError(f"factory {name}() returned None instead of an app; is there a return missing?")
    return app


def _coroutine_factory_text(factory: Any, name: str) -> str:
    try:
        inspect.signature(factory).bind(None, None, None)
    except (TypeError, ValueError):
        return (
            f"{name} is a coroutine function; an app factory must be a plain function, since it runs where "
            "there is no event loop (do async work in lifespan startup)"
        )
    return f"{name} looks like the app itself (a coroutine function of scope, receive, send); drop --factory"


def _trust(app: object, name: str, interface: interfaces.Interface) -> interfaces.Interface:
    """The interface that the user named, unless the object certainly cannot have it."""
    interfaces.refuse_no_app(app, name)
    if interface == "wsgi" and interfaces.is_coroutine_callable(app):
        raise AppLoadError(f"{name} is a coroutine function, so it cannot be WSGI; use --interface asgi or auto")
    return interface
