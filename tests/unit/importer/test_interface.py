"""Interfaces: told from the signature of the object, or refused."""

import sys
from typing import Any

import pytest

from tests.unit.importer.project import Project

INTERFACES = {
    "coroutine function": ("async def app(scope, receive, send): ...", "asgi"),
    "async __call__": ("class C:\n async def __call__(self, scope, receive, send): ...\napp = C()", "asgi"),
    "lambda around an app": (
        "async def a(s, r, x): ...\napp = lambda scope, receive, send: a(scope, receive, send)",
        "asgi",
    ),
    "partial": ("import functools\nasync def a(db, s, r, x): ...\napp = functools.partial(a, None)", "asgi"),
    "decorated": (
        "import functools\nasync def a(s, r, x): ...\n@functools.wraps(a)\ndef app(*args, **kw): return a(*args)",
        "asgi",
    ),
    "async with anything": ("async def app(*args, **more): ...", "asgi"),
    "awaitable class": (
        "class app:\n def __init__(self, scope, receive, send): ...\n def __await__(self): yield",
        "asgi",
    ),
    "method": ("class C:\n async def serve(self, scope, receive, send): ...\napp = C().serve", "asgi"),
    "wsgi function": ("def app(environ, start_response): return []", "wsgi"),
    "wsgi object": ("class C:\n def __call__(self, environ, start_response): return []\napp = C()", "wsgi"),
    "wsgi with an option": ("def app(environ, start_response, extra=None): return []", "wsgi"),
    "wsgi generator": ("def app(environ, start_response): yield b''", "wsgi"),
}


@pytest.mark.parametrize("kind", INTERFACES)
def test_interface_is_told_from_the_signature(project: Project, kind: str) -> None:
    source, interface = INTERFACES[kind]
    project.write("main.py", source + "\n")
    assert project.load("main:app").interface == interface


REFUSED = {
    "None": ("app = None", "is None"),
    "module": ("import json as app", "is a module, not an app; did you mean json:app"),
    "text": ("app = 'x'", "is a str and cannot be called"),
    "class of an app": (
        "class app:\n async def __call__(self, scope, receive, send): ...",
        "is a class; an app is an instance of it, such as app = app()",
    ),
    "plain class": ("class app: ...", "instances cannot be called"),
    "asgi 2 function": ("def app(scope): ...", "ASGI 2"),
    "asgi 2 class": (
        "class app:\n def __init__(self, scope): ...\n async def __call__(self, receive, send): ...",
        "ASGI 2",
    ),
    "factory": ("def app(): ...", "try --factory"),
    "factory with an option": ("def app(config=None): ...", "try --factory"),
    "async factory": ("async def app(): ...", "must be a plain function"),
    "two async arguments": ("async def app(request, response): ...", "takes three: scope, receive, send"),
    "anything": ("def app(*args): ...", "--interface asgi or --interface wsgi"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_app_is_refused(project: Project, kind: str) -> None:
    source, text = REFUSED[kind]
    project.write("main.py", source + "\n")
    assert text in str(project.fail("main:app"))


def test_named_interface_is_trusted(project: Project) -> None:
    project.write("main.py", "def app(*args): ...\nasync def real(s, r, x): ...\n")
    assert project.load("main:app", interface="asgi").interface == "asgi"
    assert project.load("main:app", interface="wsgi").interface == "wsgi"
    assert "cannot be WSGI" in str(project.fail("main:real", interface="wsgi"))


async def test_what_is_not_a_coroutine_function_is_made_one(project: Project) -> None:
    project.write(
        "main.py",
        """
        seen = []
        class app:
            def __init__(self, scope, receive, send): self.scope = scope
            def __await__(self):
                seen.append(self.scope)
                return iter(())
        """,
    )
    coroutine: Any = project.load("main:app").app({"type": "http"}, None, None)
    assert coroutine.send is not None, "a task can be made of it"
    await coroutine
    assert sys.modules["main"].seen == [{"type": "http"}]
