"""The interface that an object speaks: ASGI 3, ASGI 2, WSGI, or none, if it is no app.

Runs where user code is imported (zygote, lazy worker, `aserver check`). It looks at signatures and never calls the
object: calling a WSGI app or a factory to find out would run user code twice.
"""

import inspect
from types import ModuleType
from typing import Any, Literal

from aserver.asgi import ASGIApp, Receive, Scope, Send
from aserver.errors import AppLoadError

Interface = Literal["asgi", "wsgi"]


def recognise(app: object, target: str) -> Interface:
    """The interface of `app`, from its signature alone.

    ASGI 3 is a coroutine function, or any callable, of (scope, receive, send); WSGI is a plain callable of
    (environ, start_response), PEP 3333. Raises AppLoadError for everything else, with the type of the object.
    """
    refuse_no_app(app, target)
    if inspect.isclass(app):
        return _recognise_class(app, target)
    least, most = _positional_arguments(app)
    if is_coroutine_callable(app):
        if least <= 3 <= most:
            return "asgi"
        raise AppLoadError(_wrong_coroutine_text(target, least, most))
    if least == 3:
        return "asgi"
    if least == 2:
        return "wsgi"
    if least == most == 1:
        raise AppLoadError(_asgi2_text(target))
    if least == 0 and most != _UNBOUNDED:
        raise AppLoadError(factory_text(target))
    raise AppLoadError(
        f"{target} takes {_count_text(least, most)}: that could be ASGI (scope, receive, send) or "
        "WSGI (environ, start_response); say which with --interface asgi or --interface wsgi"
    )


def refuse_no_app(app: object, target: str) -> None:
    """Raise AppLoadError for None, a module, or anything that cannot be called."""
    if app is None:
        raise AppLoadError(f"{target} is None; the name exists, but no app had been assigned to it after the import")
    if isinstance(app, ModuleType):
        raise AppLoadError(
            f"{target} is a module, not an app; did you mean {app.__name__}:{_first_name(app) or 'app'}?"
        )
    if not callable(app):
        raise AppLoadError(f"{target} is a {type(app).__name__} and cannot be called, so it is no app")


def as_coroutine_app(app: Any) -> ASGIApp:
    """`app` itself if calling it makes a coroutine for certain, else a coroutine function around it.

    An ASGI app may return any awaitable (a class with `__await__`, a lambda around another app, a compiled
    function), and a task can only be made from a coroutine. The usual `async def __call__` is not wrapped.
    """
    if is_coroutine_callable(app):
        return app  # type: ignore[no-any-return]

    async def awaited(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return awaited


def is_coroutine_callable(app: object) -> bool:
    """Does a call of `app` make a coroutine, as far as can be seen without a call? A call of a class does not."""
    if inspect.isclass(app):
        return False
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(getattr(app, "__call__", None))  # noqa: B004


def factory_text(target: str) -> str:
    """The sentence for a function without arguments where an app was expected."""
    return f"{target} takes no arguments, so it is not an app but perhaps a function that returns one; try --factory"


_UNBOUNDED = 1_000


def _positional_arguments(app: Any) -> tuple[int, int]:
    """The least and the greatest number of positional arguments `app` can be called with."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):  # built-in or compiled callables need not have a signature
        return 0, _UNBOUNDED
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    unbounded = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    least = sum(p.default is p.empty for p in positional)
    return least, _UNBOUNDED if unbounded else len(positional)


def _recognise_class(app: type, target: str) -> Interface:
    if hasattr(app, "__await__"):  # Starlette's style: Class(scope, receive, send) is awaited
        return "asgi"
    if any("__call__" in vars(each) for each in app.__mro__):
        least, _ = _positional_arguments(app)
        if least == 1 and inspect.iscoroutinefunction(getattr(app, "__call__", None)):  # noqa: B004
            raise AppLoadError(_asgi2_text(target))
        raise AppLoadError(f"{target} is a class; an app is an instance of it, such as app = {app.__name__}()")
    raise AppLoadError(f"{target} is a class whose instances cannot be called, so it is no app")


def _asgi2_text(target: str) -> str:
    # Refused and not adapted: the specification calls ASGI 2 legacy, no current framework makes such apps, and an
    # adapter would hide that the app gets none of the newer messages.
    return (
        f"{target} takes one argument, as ASGI 2 apps do (app(scope)(receive, send)); aserver speaks ASGI 3: "
        "wrap it with asgiref.compatibility.guarantee_single_callable"
    )


def _wrong_coroutine_text(target: str, least: int, most: int) -> str:
    if least == 0:
        return (
            f"{target} is a coroutine function without arguments; an app factory must be a plain function, "
            "since it runs where there is no event loop (do async work in lifespan startup)"
        )
    return (
        f"{target} is a coroutine function of {_count_text(least, most)}; an ASGI app takes three: scope, receive, send"
    )


def _count_text(least: int, most: int) -> str:
    if least == most:
        return f"{least} positional argument{'s' * (least != 1)}"
    return f"{least} or more positional arguments" if most == _UNBOUNDED else f"{least} to {most} positional arguments"


def _first_name(module: ModuleType) -> str | None:
    return next((name for name in DEFAULT_NAMES if hasattr(module, name)), None)


#: Attributes that a target without an attribute may mean, in this order: the names in the documents of the frameworks.
DEFAULT_NAMES = ("app", "application", "asgi")
