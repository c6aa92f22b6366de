"""The rules that the documents promise, held against the source.

Each list of exceptions below may shrink; an addition needs its reason beside it. Rules of imports are `.importlinter`,
rules of style are ruff's (pyproject.toml); this file has the rules that neither can say.
"""

import ast
import configparser
import gc
import io
import re
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "aserver"
TESTS = ROOT / "tests"

#: Where a process may end itself: `module::function`, and the call.
EXITS = {
    ("command/cli.py::main", "sys.exit"): "the command",
    ("launch/run.py::run", "SystemExit"): "a program that calls it unguarded, in which a traceback shows correct code",
    ("launch/daemon.py::detached", "os._exit"): "the process between the command and a detached server",
    ("worker/exit.py::ProcessExit._keep_watch", "os._exit"): "a worker whose time to leave has run out",
    ("worker/exit.py::ProcessExit.go", "os._exit"): "a worker's end",
    ("worker/exit.py::ProcessExit._finish", "os._exit"): "a worker's end",
    ("zygote/main.py::_first_message", "os._exit"): "a zygote that nobody wants any more has no settings yet",
    ("zygote/main.py::Zygote._become_worker", "os._exit"): "a forked child must never return into the zygote's loop",
    ("zygote/warm.py::Warmth._rehearse", "os._exit"): "the child in which an import is tried",
    ("zygote/native.py::_fork_and_end", "os._exit"): "the child that only looks which threads survive a fork",
}

#: Where `except Exception`, `except BaseException` and `suppress(Exception)` may stand. Those that are not around the
#: application's code or a user's hook say why.
BROAD = {
    "config/python_file.py::tell": "a Python settings file is user code",
    "importer/warmup.py::_ask": "the application",
    "importer/warmup.py::_call": "the application",
    "importer/hooks.py::Hooks._reporting": "user hooks",
    "importer/hooks.py::Hooks.run": "user hooks",
    "importer/target.py::_import": "the application",
    "importer/target.py::_get": "the application: a module's __getattr__, a property",
    "importer/target.py::_call_factory": "the application",
    "log/access/recorder.py::_writer.make": "the scope is the application's, and may hold anything",
    "log/access/recorder.py::_make_one_by_one": "the scope is the application's, and may hold anything",
    "log/stdio.py::finish_streams": "sys.stdout and sys.stderr may be the application's objects",
    "log/layout.py::message_of": "str() of an object of the application",
    "master/reload.py::read.work": "carries any error from a thread into the loop, where it is raised again",
    "master/upgrade.py::_wait": "ends the child, then raises again",
    "protocol/application/tasks.py::Tasks._run": "the application",
    "protocol/websocket/connection.py::Socket.receive": "gives back an event not taken, then raises again",
    "sockets/bind.py::_bind_address": "closes the sockets bound so far, then raises again",
    "worker/development.py::DevelopedApp._serve": "the application",
    "wsgi/call.py::Call.run": "the application; the loop raises it again",
    "worker/exit.py::_guarded": "exit functions of the application",
    "worker/lifespan.py::Lifespan._run": "the application",
    "worker/main.py::run": "the process's last line of defence: logs, and tells the master",
    "zygote/warm.py::_imported": "modules of installed packages, which may want what is not there",
    "zygote/main.py::main": "the process's last line of defence: logs, and tells the master",
}

#: Lines of a module: 400 and no more, except these.
MODULE_LINES = 400
LONG_MODULES: dict[str, int] = {}

#: Lines of a function: 50 and no more, except these.
FUNCTION_LINES = 50
LONG_FUNCTIONS: dict[str, int] = {}

#: A sentence that begins so names nothing.
VAGUE = re.compile(r"(Who|What|One|Nobody|Everybody|Somebody)\b")

#: Words that name nothing, and how many of each may be in 1000 words of comments and docstrings. uvicorn, h11 and
#: websockets have 1.8 of any at most.
VAGUE_WORDS = {"who|nobody|everybody": 0.1, "what": 1.2, "ones?": 1.8}

#: Public classes that share a name, and why they may.
NAMES_OF_SEVERAL = {
    "Kill": "the order, and the message that carries it where there are no pidfds",
    "Inflater": "the part that a frame reader asks for, and what has it",
}

#: Modules of tests/unit that are about a subject across modules instead of one module or package.
SUBJECTS = {
    "bench/test_quick.py",
    "log/test_signals.py",
    "metrics/test_deploy.py",
    "test_house_rules.py",
    "test_linear.py",
    "worker/test_accepting_orders.py",
}

#: Modules without a test module of their name: they declare, or are the whole of a process or a connection.
TESTED_ELSEWHERE = {
    "admin/main.py": "a process: process/test_admin.py",
    "asgi.py": "types alone",
    "config/keywords.py": "generated: unit/command/test_keywords_page.py",
    "django/apps.py": "needs a configured Django: process/test_django_runserver.py",
    "django/served.py": "needs a configured Django: process/test_django_runserver.py",
    "master/control/answers.py": "orders by the real command: process/test_control.py",
    "master/control/companion.py": "keeps a process: process/test_admin.py",
    "master/control/orders.py": "shapes alone: unit/master/control/test_server.py sends them",
    "master/control/statsd.py": "sends real datagrams: process/test_metrics.py",
    "master/control/status.py": "looks at a whole master: process/test_control.py",
    "master/core/events.py": "shapes alone",
    "master/core/model.py": "the state that every test of master/core looks at",
    "metrics/families.py": "names alone: unit/metrics/test_tally.py",
    "protocol/application/begin.py": "a scope as applications see it: http1/test_requests.py, http2/test_connection.py",
    "protocol/context.py": "values that connections share",
    "protocol/http1/answers.py": "refusals on a connection: http1/test_requests.py",
    "protocol/http1/encoder.py": "the bytes of a response: semantics/test_response.py",
    "protocol/http1/head.py": "heads as the reader makes them: http1/test_reader.py, http1/test_requests.py",
    "protocol/http2/begin.py": "a scope as applications see it: http2/test_connection.py",
    "protocol/http2/encoder.py": "header blocks both ways: http2/test_hpack.py",
    "protocol/http2/errors.py": "numbers, and two exceptions",
    "protocol/http2/frames.py": "frames by the RFC's rows: http2/test_rfc9113.py, http2/test_h2spec.py",
    "protocol/http2/sink.py": "shapes alone",
    "protocol/http2/waiting.py": "a stream's wait: http2/test_windows.py",
    "protocol/semantics/limits.py": "shapes alone",
    "protocol/semantics/response_head.py": "the head of a response: semantics/test_response.py",
    "protocol/semantics/status.py": "phrases: semantics/test_response.py",
    "protocol/service.py": "all of a server's connections: every test of protocol/ is of one",
    "protocol/transport/connection.py": "what a handler sees of it: http1/test_connection.py",
    "protocol/transport/reception.py": "a header's way on a connection: peer/test_proxy_protocol.py",
    "testing/plugin.py": "the fixture of unit/testing/test_testing.py",
    "worker/exit.py": "ends its process: process/test_leaving.py",
    "worker/native_server.py": "clients of a listener: protocol/transport/test_native.py",
    "worker/main.py": "a process: process/test_start.py and others",
    "zygote/main.py": "a process: process/test_trap_fork.py and others",
}

#: How often tests look at what a leading underscore calls private, by directory.
PRIVATE_READS = {
    "apps": 1,
}


@cache
def tree(path: Path) -> ast.Module:
    gc.disable()  # all the nodes stay: a collection meanwhile finds nothing
    try:
        return ast.parse(path.read_bytes(), str(path))
    finally:
        gc.enable()


@pytest.fixture(scope="module", autouse=True)
def _forgotten() -> Iterator[None]:
    """The trees are millions of objects, which every full collection of the tests that follow would look at."""
    yield
    for cached in (tree, nodes, prose, words):
        cached.cache_clear()


def sources(root: Path = SERVER) -> list[Path]:
    return sorted(path for path in root.rglob("*.py") if "/bench/.env-" not in path.as_posix())


def name_of(path: Path) -> str:
    return path.relative_to(SERVER).as_posix()


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    """Every node of the server with the place where it stands: `module::Class.function`."""
    found = []

    def walk(node: ast.AST, module: str, names: tuple[str, ...]) -> None:
        for child in ast.iter_child_nodes(node):
            inner = names
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                inner = (*names, child.name)
            found.append((f"{module}::{'.'.join(inner)}", child))
            walk(child, module, inner)

    for path in sources():
        walk(tree(path), name_of(path), ())
    return found


def test_processes_end_themselves_only_where_it_is_listed() -> None:
    exits = {"exit", "_exit", "quit", "abort"}  # by any name that the module may have
    found = {
        (place, ast.unparse(node.func))
        for place, node in nodes()
        if isinstance(node, ast.Call)
        and (getattr(node.func, "id", "") in exits or getattr(node.func, "attr", "") in exits)
        and (getattr(node.func, "attr", "") != "abort" or ast.unparse(node.func) == "os.abort")
    } | {
        (place, "SystemExit")
        for place, node in nodes()
        if isinstance(node, ast.Raise) and node.exc is not None and "SystemExit" in ast.unparse(node.exc)
    }
    assert found == EXITS.keys()


def test_a_name_means_one_thing() -> None:
    """No two public classes of the same name."""
    classes = Counter(
        node.name
        for path in sources()
        for node in tree(path).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, number in classes.items() if number > 1} == NAMES_OF_SEVERAL.keys()
    assert "Phase" not in classes, "say whose phase it is"


def is_broad(node: ast.AST) -> bool:
    """Does this catch every Exception? A clause without a type, which ruff forbids (E722), counts too."""
    if isinstance(node, ast.ExceptHandler):
        types = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        types = list(node.args)
    else:
        return False
    return any(each is None or ast.unparse(each) in {"Exception", "BaseException"} for each in types)


def test_broad_excepts_stand_only_where_it_is_listed() -> None:
    assert {place for place, node in nodes() if is_broad(node)} == BROAD.keys()


def test_modules_and_functions_are_short() -> None:
    modules = {name_of(path): len(path.read_text().splitlines()) for path in sources()}
    assert_within(modules, MODULE_LINES, LONG_MODULES)
    lines: dict[str, int] = {}
    for place, node in nodes():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno
            lines[place] = node.end_lineno - node.lineno + 1
    assert_within(lines, FUNCTION_LINES, LONG_FUNCTIONS)


def assert_within(found: dict[str, int], limit: int, exceptions: dict[str, int]) -> None:
    too_long = {name: lines for name, lines in found.items() if lines > exceptions.get(name, limit)}
    assert not too_long, "longer than they may be"
    needless = {name for name in exceptions if found.get(name, 0) <= limit}
    assert not needless, "take these off the list of exceptions"


def test_a_module_that_calls_itself_pure_is_held_to_it() -> None:
    """A package that calls itself pure says it of all its modules. Fails with a module missing in .importlinter."""
    rules = configparser.ConfigParser()
    rules.read(ROOT / ".importlinter")
    held = set(rules["importlinter:contract:pure"]["source_modules"].split())
    promised = set[Path]()
    for path in sources():
        if re.search(r"\bPure\b", ast.get_docstring(tree(path)) or ""):
            promised |= set(path.parent.glob("*.py")) - {path} if path.name == "__init__.py" else {path}
    modules = {"aserver." + ".".join(path.relative_to(SERVER).with_suffix("").parts) for path in promised}
    assert modules <= held


def test_the_compiled_modules_exist() -> None:
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
    missing = [name for name in hook["mypyc"]["include"] if not (ROOT / name.lstrip("/")).is_file()]
    assert not missing


@cache
def prose(path: Path) -> list[str]:
    """Each docstring, and each comment of one or several lines, with spaces for line ends."""
    found = [
        re.sub(r"\s+", " ", ast.get_docstring(node) or "")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT:
            whole_line = not token.line[: token.start[1]].strip()
            text = token.string.lstrip("#: ")
            if whole_line and token.start[0] == last + 1:
                found[-1] += f" {text}"
            else:
                found.append(text[:1].upper() + text[1:])
            last = token.start[0] if whole_line else -1
    return found


def sentences(path: Path) -> Iterator[str]:
    for text in prose(path):
        yield from re.split(r"(?<=[.!?:;])\s+", text)


def test_references_can_be_followed() -> None:
    """A comment names a thing, or says where the number is explained: "(docs/traps.md, 5)"."""
    found = [
        f"{name_of(path)}: {text[:90]}"
        for path in sources()
        for text in prose(path)
        if re.search(r"\b(?:traps? \d|PROCESS \d|promise \d)", text)
    ]
    assert not found, "name the thing instead"


def test_the_layout_in_the_documents_is_the_trees() -> None:
    """docs/design.md lists every module, and the documents name no file that is not there."""
    block = (ROOT / "docs" / "design.md").read_text().split("## Layout\n\n")[1].split("\n\n")[0]
    listed: dict[str, set[str]] = {}
    package = ""
    for line in block.splitlines():
        if heading := re.match(r" {4}(\S+)/ ", line):
            package = heading[1]
            listed[package] = set()
        else:
            listed[package] |= set(line.split())
    found: dict[str, set[str]] = {}
    for path in sources():
        modules = found.setdefault(path.parent.relative_to(SERVER).as_posix(), set())
        if not path.stem.startswith("__"):
            modules.add(path.stem)
    assert listed == found
    assert list(missing_files()) == []


def test_names_in_the_documents_exist() -> None:
    """In backticks and of a name's shape: such a name is found in the server, the tests, the benchmarks or deploy/."""
    code = [path.read_text() for root in (SERVER, TESTS, ROOT / "bench") for path in sources(root)]
    code += [path.read_text() for path in (ROOT / "deploy").iterdir() if path.is_file()]
    known = set(re.findall(r"\w+", " ".join(code)))
    missing = {
        f"{page.name}: {name}"
        for page in [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]
        if page.name != "CHANGELOG.md"
        for name in re.findall(r"`(_?[A-Za-z]\w*(?:\.\w+)*)(?:\(\))?`", page.read_text())
        if SHAPED.search(name) and name not in FOREIGN and not name.endswith(".py")
        if name.split(".")[0] not in sys.stdlib_module_names
        if not known.issuperset(name.split("."))
    }
    assert not missing


def missing_files() -> Iterator[str]:
    """Files named in the documents that are not there. A test may be named without its folder."""
    tests = {path.name for path in sources(TESTS)}
    for page in [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), *(ROOT / "bench").glob("*.md")]:
        text = page.read_text() if page.name != "CHANGELOG.md" else ""
        for name in re.findall(r"`((?:\w+/)*\w+\.py)(?:::\w+)?`", text):
            if (
                name not in tests
                and "/" in name
                and not any((root / name).is_file() for root in (SERVER, ROOT, TESTS, page.parent))
            ):
                yield f"{page.name}: {name}"
            if name.startswith("test_") and name not in tests:
                yield f"{page.name}: {name}"


def test_each_trap_has_its_tests() -> None:
    """docs/traps.md lists the traps by number, each with tests that exist, and every test named after a trap."""
    page = (ROOT / "docs" / "traps.md").read_text()
    rows = re.findall(r"^\| (\d+) \| .+ \| (.+) \|$", page, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 93))
    listed = {(int(number), test) for number, held in rows for test in re.findall(r"`([\w/]+\.py::\w+)`", held)}
    tests = {
        f"{path.relative_to(TESTS).as_posix()}::{node.name}"
        for path in sources(TESTS)
        for node in tree(path).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
    named = {
        (int(number), test)
        for test in tests
        for numbers in re.findall(r"_traps?((?:_(?:and_)?\d+)+)_", test)
        for number in re.findall(r"\d+", numbers)
    }
    assert {test for _, test in listed} <= tests
    assert named <= listed
    assert all("`" in held for _, held in rows)


def test_sentences_name_their_subject() -> None:
    """Comments and docstrings say of which thing they speak, from the first word on."""
    found = [
        f"{path.relative_to(ROOT)}: {sentence[:90]}"
        for path in sources() + sources(ROOT / "bench")
        for sentence in sentences(path)
        if VAGUE.match(sentence)
    ]
    assert not found


def test_prose_has_few_words_that_name_nothing() -> None:
    """The numbers may only shrink."""
    text = " ".join(text for path in sources() + sources(ROOT / "bench") for text in prose(path)).lower()
    thousands = len(re.findall(r"[a-z']+", text)) / 1000
    found = {words: len(re.findall(rf"\b(?:{words})\b", text)) / thousands for words in VAGUE_WORDS}
    assert all(found[words] <= most for words, most in VAGUE_WORDS.items()), found


@cache
def words(path: Path) -> set[str]:
    """The identifiers of a source, and the words of its strings that are no docstrings."""
    docstrings = (
        {
            node.body[0].value
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and isinstance(node.body[0], ast.Expr)
        }
        if tree(path).body
        else set()
    )
    found = set[str](path.relative_to(ROOT).with_suffix("").parts)
    for node in ast.walk(tree(path)):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.alias(name=name):
                found.update(name.split("."))
            case ast.keyword(arg=str(name)) | ast.ClassDef(name=name):
                found.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.Constant(value=str(text)) if node not in docstrings:
                found.update(re.findall(r"\w+", text))
    return found


#: A name: in backticks, or of a shape that no English word has (`a_name`, `Name.part`, CamelCase). No paths.
NAME = re.compile(r"(?<![\w./'-])_*[A-Za-z]\w*(?:\.\w+)*(?![\w/-])")
SHAPED = re.compile(r"_|\w\.\w|[a-z][A-Z]")
#: Names in notes and documents that are not ours.
FOREIGN = {
    "AppStatus",
    "WSGIWrapper",
    "ClassVar",
    "ProcessPoolExecutor",
    "SHUT_RDWR",
    "close_notify",
    "ip_hash",
    "no_new_privs",
    "preexec_fn",
    "proxy_set_header",
    "sd_notify",
    "send_early_hints",
    "task.get_stack",
    "terminationGracePeriodSeconds",
    "warn_unreachable",
}


def names_in(note: str) -> set[str]:
    shaped = {name for name in NAME.findall(note.replace("`", "")) if SHAPED.search(name)}
    return {
        name
        for name in shaped | set(re.findall(r"`(\w+)`", note))
        if name not in FOREIGN and name.split(".")[0] not in sys.stdlib_module_names and not name[0].isdigit()
    }


def test_names_in_notes_exist() -> None:
    """Each name in a "Fails without ..." note is in the server: a note about a function that is gone proves nothing."""
    known = set[str]().union(*(words(path) for path in sources()))
    known.update(*(re.findall(r"\w+", path.read_text()) for path in SERVER.rglob("*.pyx")))
    missing = []
    for path in sources(TESTS):
        notes = [note for text in prose(path) for note in re.findall(r"Fails \w+ .+?(?:\.(?= )|\.?$)", text)]
        strange = [name for note in notes for name in names_in(note) if not known.issuperset(name.split("."))]
        here = words(path) if strange else set()
        unknown = [name for name in strange if not all(part in known or part in here for part in name.split("."))]
        missing += [f"{path.relative_to(ROOT)}: {name}" for name in unknown]
    assert not missing, "\n".join(sorted(missing))


def test_tests_mirror_the_tree() -> None:
    """A test stands where the module stands that it is about; protocol's tests are about a package at least."""
    for path in sources(TESTS / "unit"):
        name = path.relative_to(TESTS / "unit")
        if path.name.startswith("test_") and name.as_posix() not in SUBJECTS:
            about = name.parent / path.name.removeprefix("test_")
            places = [root / about for root in (SERVER, ROOT)]
            assert any(each.is_file() for each in places) or about.stem == about.parent.name, f"{name} is about nothing"
    for layer, root in (("unit", SERVER), ("protocol", SERVER / "protocol")):
        for path in sources(TESTS / layer):
            folder = path.parent.relative_to(TESTS / layer)
            mirrored = (root / folder).is_dir() or (layer == "unit" and (ROOT / folder).is_dir())
            assert mirrored, f"{layer}/{folder} mirrors nothing"


def test_each_module_has_a_test_module_of_its_name() -> None:
    """In the same place below tests/unit or tests/protocol, or elsewhere under a name that no other module has."""
    found = {path.relative_to(TESTS).as_posix() for path in sources(TESTS)}
    anywhere = {Path(path).name for path in found}
    modules = [path.relative_to(SERVER) for path in sources() if not path.stem.startswith("__")]
    stems = Counter(path.stem for path in modules)
    lacking = set()
    for path in modules:
        own, place = f"test_{path.stem}.py", path.parent.as_posix()
        names = {f"test_{part}_{path.stem}.py" for part in path.parts[:-1]}
        if stems[path.stem] == 1:
            names.add(own)
        beside = {Path(layer, place, own).as_posix() for layer in ("unit", ".")}
        if not (names & anywhere or beside & found):
            lacking.add(path.as_posix())
    assert lacking == TESTED_ELSEWHERE.keys()


def test_no_test_needs_another() -> None:
    """What several tests need stands in tests/harness, or in a module that is no test."""
    borrowed = {
        f"{path.relative_to(TESTS)}: {node.module}"
        for path in sources(TESTS)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and ".test_" in f".{node.module}"
    }
    assert not borrowed


def test_tests_look_at_what_is_public() -> None:
    """Of a module's own they may see everything, and so of Python's and of packages'. The numbers may only shrink."""
    ours = {
        name
        for path in sources()
        for node in ast.walk(tree(path))
        for name in (
            [node.attr]
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            else [node.target.id]
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
            else [node.name]
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            else []
        )
    }
    found = Counter(
        "/".join(path.relative_to(TESTS).parts[:2][: len(path.relative_to(TESTS).parts) - 1])
        for path in sources(TESTS)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and re.match(r"_[^_]", node.attr) and node.attr in ours
        if ast.unparse(node.value) not in {"self", "cls", *sys.stdlib_module_names}
    )
    assert found == Counter(PRIVATE_READS)
