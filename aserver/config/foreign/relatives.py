"""Commands whose words are uvicorn's in the main: `fastapi run`, which starts uvicorn, and daphne.

Pure. It rewrites a command line; words that it does not know stay as they are, and are then named as not understood.
"""

from collections.abc import Container, Sequence

#: daphne's flags that take a value. Each stands for a flag of uvicorn's (`--...`), or for advice on what to set here.
_DAPHNE = {
    "-b": "--host",
    "--bind": "--host",
    "-p": "--port",
    "--port": "--port",
    "-u": "--uds",
    "--unix-socket": "--uds",
    "--fd": "--fd",
    "--root-path": "--root-path",
    "--ping-interval": "--ws-ping-interval",
    "--ping-timeout": "--ws-ping-timeout",
    "-e": "bind, with certfile and keyfile for TLS",
    "--endpoint": "bind, with certfile and keyfile for TLS",
    "-t": "request_timeout",
    "--http-timeout": "request_timeout",
    "--access-log": "accesslog",
    "-v": "loglevel",
    "--verbosity": "loglevel",
    "--log-fmt": "log_config",
    "--websocket-max-message-size": "--ws-max-size",
    "--websocket-max-frame-size": "ws_max_size, which bounds a message, of however many frames",
    "--proxy-headers-host": "forwarded_allow_ips: the names of the proxy's headers are fixed",
    "--proxy-headers-port": "forwarded_allow_ips: the names of the proxy's headers are fixed",
    "--websocket_timeout": "the application, which closes a WebSocket that is too old",
    "--websocket_connect_timeout": "the application, which bounds its own time to accept",
    "--application-close-timeout": "graceful_timeout",
    "-s": '`header = "server: NAME"`',
    "--server-name": '`header = "server: NAME"`',
}
#: fastapi's flags that take a value.
_FASTAPI = frozenset(
    {
        "-e",
        "--entrypoint",
        "--app",
        "--host",
        "--port",
        "--workers",
        "--root-path",
        "--forwarded-allow-ips",
        "--reload-dir",
    }
)
_VERBOSE = frozenset({"-v", "--verbose"})
_RELOAD = frozenset({"--reload", "--no-reload"})


def rewritten(name: str, words: Sequence[str]) -> tuple[list[str], list[str]] | None:
    """The words behind the command `name` as uvicorn has them, and what is to be said; None for any other command."""
    if name == "daphne":
        return _daphne(words)
    if name == "fastapi" and words and words[0] in {"run", "dev"}:
        return _fastapi(words[0], words[1:])
    return None


def _pairs(words: Sequence[str], valued: Container[str]) -> list[tuple[str, str | None]]:
    """Each word, with its value if it is one of the flags that take one."""
    found: list[tuple[str, str | None]] = []
    rest = list(words)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if flag in valued:
            found.append((flag, value if equals or not rest else rest.pop(0)))
        else:
            found.append((flag + equals + value, None))
    return found


def _daphne(words: Sequence[str]) -> tuple[list[str], list[str]]:
    ours: list[str] = []
    said: list[str] = []
    for word, value in _pairs(words, _DAPHNE):
        if value is None:
            ours.append("--no-server-header" if word == "--no-server-name" else word)
        elif _DAPHNE[word].startswith("--"):
            ours += _DAPHNE[word], value
        else:
            said.append(f"daphne, {word} {value}: see {_DAPHNE[word]}")
    return ours, said


def _fastapi(verb: str, words: Sequence[str]) -> tuple[list[str], list[str]]:
    ours: list[str] = []
    said = [f"fastapi, {word}: loglevel = debug says more here" for word in words if word in _VERBOSE]
    switches = [word for word in words if word in _RELOAD]
    words = [word for word in words if word not in _VERBOSE | _RELOAD]
    path = target = None
    app = "app"
    for word, value in _pairs(words, _FASTAPI):
        if word in {"-e", "--entrypoint"}:
            target = value
        elif word == "--app":
            app = value or app
        elif value is not None:
            ours += word, value
        elif word.startswith("-"):
            ours.append(word)
        else:
            path = word
    if path is not None:
        target = f"{path.removesuffix('.py').strip('./').replace('/', '.')}:{app}"
    if target is None:
        said.append("fastapi looks for main.py, app.py or api.py: name the application as `target`")
    else:
        ours.insert(0, target)
    if verb == "run" and "--host" not in ours:
        ours += "--host", "0.0.0.0"  # noqa: S104 - fastapi's own default
    if switches[-1:] == ["--reload"] or (verb == "dev" and not switches):
        ours.append("--reload")
    return ours, said
