"""`manage.py runserver` with "aserver.django" in INSTALLED_APPS, with the reloader as a user runs it, and without."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.harness import PATIENCE, wait_for

pytestmark = pytest.mark.process

SITE = """
import os, signal, sys
from pathlib import Path
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse
from django.urls import path

ALLOWED_HOSTS, DEBUG, ROOT_URLCONF, SECRET_KEY, STATIC_URL = ["*"], True, "site_of_a_test", "for a test", "static/"
INSTALLED_APPS = ["aserver.django", "django.contrib.staticfiles"]
STATICFILES_DIRS = [Path(__file__).parent / "assets"]

async def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"hello over {type(request).__name__}")

urlpatterns = [path("", hello)]

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # deaf, if the tests run in the background of a script
    os.environ["DJANGO_SETTINGS_MODULE"] = "site_of_a_test"
    execute_from_command_line(sys.argv)
"""


@pytest.mark.parametrize("options", [(), ("--noreload",)])
def test_runserver_serves_asgi_and_static_files(options: tuple[str, ...], tmp_path: Path) -> None:
    """At a save the new code answers, in time for the next request; Ctrl-C ends all.

    Fails without `server_cls`, or in another order, and without `Command.run` (Django's reloader starts all anew, and
    refuses connections meanwhile).
    """
    (tmp_path / "site_of_a_test.py").write_text(SITE)
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "style.css").write_text("body {}")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ASERVER_")}
    with (
        (tmp_path / "output").open("w+") as output,
        subprocess.Popen(
            [sys.executable, "site_of_a_test.py", "runserver", "127.0.0.1:0", *options],
            cwd=tmp_path,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as program,
    ):
        try:
            ready = re.compile(r"listening on (http://\S+)")
            wait_for(lambda: ready.search((tmp_path / "output").read_text()), what="the server to listen")
            url = ready.findall((tmp_path / "output").read_text())[0]
            with httpx.Client(base_url=url, timeout=PATIENCE) as client:
                assert client.get("/").text == "hello over ASGIRequest"
                assert client.get("/static/style.css").text == "body {}"
                assert client.get("/static/nothing.css").status_code == 404
                if not options:
                    (tmp_path / "site_of_a_test.py").write_text(SITE.replace("hello over", "bye over"))
                    wait_for(lambda: client.get("/").text == "bye over ASGIRequest", what="the new code")
            # Not after Ctrl-C: a thread that Django starts at a request's end may come too late for the interpreter.
            assert "Traceback" not in (tmp_path / "output").read_text()
            os.killpg(program.pid, signal.SIGINT)  # as a terminal does
            program.wait(PATIENCE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
