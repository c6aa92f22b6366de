# cython: language_level=3, binding=False, boundscheck=False, wraparound=False
"""Plain requests of HTTP/1.1, in Cython: from the bytes of a head to the application's task, and to its answer.

Runs in the worker's loop, if it was compiled (`hatch_build.py`). A `PlainConnection` is the handler of a connection. It
serves a request by itself if its head and a short body, or none, come in a single piece, also with other requests behind it
(pipelining). The answer may be a single piece or a stream. For all else the ordinary `HttpConnection` and `Exchange` take
over, at any point of a request or of its answer (`PlainExchange.ordinary`). It must never accept a head that they refuse,
nor send other bytes than they would. tests/protocol run with both.
"""

import asyncio
import sys
import time
from collections.abc import Coroutine
from types import CoroutineType

from aserver.asgi import VERSIONS
from aserver.errors import ClientError
from aserver.log.access import record
from aserver.metrics.page import Awaited
from aserver.protocol.application.body import HIGH_WATER, RequestBody
from aserver.protocol.application.exchange import Exchange
from aserver.protocol.http1.encoder import field_lines
from aserver.protocol.http1.framing import ReadPhase
from aserver.protocol.http1.reader import PORTION_BYTES
from aserver.protocol.peer import forwarded, queue_time as queues
from aserver.protocol.semantics import fields, response, target as targets
from aserver.protocol.transport import writer

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE, _PyBytes_Resize
from cpython.dict cimport PyDict_Copy, PyDict_GetItem, PyDict_GetItemWithError, PyDict_SetItem
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE, PyList_New, PyList_SET_ITEM
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from cpython.set cimport PySet_GET_SIZE
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.math cimport INFINITY
from libc.stdio cimport sprintf
from libc.string cimport memchr, memcmp, memcpy
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, clockid_t, timespec

cdef extern from *:
    """
    #ifdef CLOCK_MONOTONIC_COARSE  /* some milliseconds late, and a third of the time */
    #define COARSE_CLOCK CLOCK_MONOTONIC_COARSE
    #else
    #define COARSE_CLOCK CLOCK_MONOTONIC
    #endif
    """
    clockid_t COARSE_CLOCK

cdef extern from "Python.h":
    object PyObject_Call(object, object, object)
    object PyObject_CallNoArgs(object)
    object PyContext_Copy(object)
    int PyIter_Send(object, object, PyObject **) except? -1
    void PyErr_SetObject(PyObject *, object)
    PyObject *PyExc_StopIteration
    object PyUnicode_New(Py_ssize_t, Py_UCS4)
    Py_ssize_t PyUnicode_GET_LENGTH(object)
    void *PyUnicode_1BYTE_DATA(object)
    ctypedef struct PyTypeObject:
        PyObject *(*tp_iternext)(PyObject *) except? NULL

ctypedef const unsigned char *cstr

DEF NAMES = 1024  # places in the hash table of names, a power of two
DEF MOST_FIELDS = 128
DEF LONGEST_NAME = 64
DEF LONGEST_KEPT = 512  # the most bytes of a value in LAST
DEF LENGTH_DIGITS = 9  # the most digits of a Content-Length
DEF FRAME = 16  # more bytes than the framing of a chunk below JOIN_LIMIT takes
DEF MOST_TOLD = 8  # above the number of forwarding fields, each of which may come once

cdef bint EAGER = sys.version_info >= (3, 12)
cdef double GATHER_SECONDS = writer.GATHER_SECONDS, HOLD_SECONDS = writer.HOLD_SECONDS
cdef Py_ssize_t MOST_GATHERED = writer.MOST_GATHERED, MOST_KEPT = record.MOST_KEPT
cdef Py_ssize_t JOIN_LIMIT = response.JOIN_LIMIT, HOLD_BYTES = writer.HOLD_BYTES, MOST_PIPELINED = PORTION_BYTES
cdef object Task = asyncio.Task, NEXT_REQUEST = Awaited.NEXT_REQUEST, NOTHING = Awaited.NOTHING
cdef object BETWEEN = ReadPhase.BETWEEN, monotonic = time.monotonic, decode_path = targets.decode_path
cdef object as_bytes = fields.as_bytes
cdef tuple STATES = (response.START, response.HEADED, response.BODY, response.DONE)
cdef object with_port = forwarded.with_port, queue_time = queues.queue_time, clock_gettime_of = time.clock_gettime
cdef int REALTIME = time.CLOCK_REALTIME
cdef dict METHODS = targets.METHODS
cdef dict ASGI = VERSIONS
cdef str GET = "GET"

cdef enum:
    START = 0
    HEADED = 1
    BODY = 2
    DONE = 3


# ── names of fields ──────────────────────────────────────────────────────────────────────────────

cdef unsigned char LOWER[256]  # a token's character in lower case; 0 for other characters
cdef unsigned char HOST_CHARACTER[256]
cdef PyObject *KNOWN[NAMES]
cdef int MEANING[NAMES]  # of the name at the same place
#: The last field of the name at the same place, as a pair, because most clients repeat their fields. Secret values are
#: not kept.
cdef PyObject *LAST[NAMES]

cdef enum:
    ORDINARY = 0
    HOST
    CONNECTION
    LENGTH
    FORWARDING
    WAITED  # X-Request-Start
    SECRET
    NOT_PLAIN  # a request with it is not plain; Proxy-Connection too, which llhttp takes for Connection

cdef dict MEANINGS = dict.fromkeys(fields.REQUEST_NAMES.values(), ORDINARY)
MEANINGS.update(dict.fromkeys((*fields.FRAMING_NAMES, b"proxy-connection"), NOT_PLAIN))
MEANINGS.update({**dict.fromkeys(fields.FORWARDING_NAMES, FORWARDING), queues.FIELD: WAITED})
MEANINGS.update(dict.fromkeys((b"authorization", b"proxy-authorization", b"cookie", b"x-api-key"), SECRET))
MEANINGS.update({b"host": HOST, b"connection": CONNECTION, b"content-length": LENGTH})


cdef fill_tables():
    cdef unsigned int h
    cdef int c
    for c in range(256):
        LOWER[c] = c if chr(c) in "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz" else 0
        if 65 <= c <= 90:
            LOWER[c] = c + 32
        HOST_CHARACTER[c] = chr(c) in "-._~" or (c < 128 and chr(c).isalnum())
    for name, meaning in MEANINGS.items():
        h = 0
        for c in name:
            h = h * 31 + c
        h %= NAMES
        while KNOWN[h] is not NULL:
            h = (h + 1) % NAMES
        KNOWN[h] = <PyObject *> name  # not counted: MEANINGS keeps it
        MEANING[h] = meaning


fill_tables()

cdef dict SPELLED = {name: name for name in MEANINGS}  # the objects that are in the table
cdef PyObject *AGENT = <PyObject *> SPELLED[b"user-agent"]
cdef PyObject *REFERER = <PyObject *> SPELLED[b"referer"]
cdef PyObject *AUTHORIZATION = <PyObject *> SPELLED[b"authorization"]


cdef inline int lower_name(cstr p, Py_ssize_t size, unsigned char *low) noexcept:
    """Write a name to `low` in lower case; return its place in the table, -1 if it has none, -2 if it is no token."""
    cdef unsigned int h = 0
    cdef Py_ssize_t i
    cdef unsigned char c
    if size > LONGEST_NAME or size <= 0:
        return -2
    for i in range(size):
        c = LOWER[p[i]]
        if c == 0:
            return -2
        low[i] = c
        h = h * 31 + c
    h %= NAMES
    while KNOWN[h] is not NULL:
        if PyBytes_GET_SIZE(<object> KNOWN[h]) == size and memcmp(PyBytes_AS_STRING(<object> KNOWN[h]), low, size) == 0:
            return h
        h = (h + 1) % NAMES
    return -1


cdef inline bint is_clean(cstr p, Py_ssize_t size) noexcept:
    """Whether there is no control character except tab. The loop has no early end, so the compiler uses vectors."""
    cdef unsigned char bad = 0
    cdef Py_ssize_t i
    for i in range(size):
        bad |= ((p[i] < 32) & (p[i] != 9)) | (p[i] == 127)
    return bad == 0


cdef inline bint is_value_of(PyObject *pair, cstr p, Py_ssize_t size) noexcept:
    """Whether a pair has this value."""
    cdef PyObject *value = <PyObject *> PyTuple_GET_ITEM(<object> pair, 1)
    return PyBytes_GET_SIZE(<object> value) == size and memcmp(PyBytes_AS_STRING(<object> value), p, size) == 0


cdef bint is_good_host(cstr p, Py_ssize_t size) noexcept:
    """Whether it is a name or an IPv4 address of the plainest characters, or that with a port (see `check_host`)."""
    cdef Py_ssize_t i = 0, colon
    while i < size and HOST_CHARACTER[p[i]]:
        i += 1
    if i == 0 or i == size:
        return i > 0
    colon = i
    i += 1
    while i < size and 48 <= p[i] <= 57:
        i += 1
    return p[colon] == 58 and i == size and size - colon <= 6


cdef inline bint is_printable(cstr p, Py_ssize_t size) noexcept:
    """Whether an access line shows it as it is."""
    cdef unsigned char bad = 0
    cdef Py_ssize_t i
    for i in range(size):
        bad |= (p[i] < 32) | (p[i] > 126) | (p[i] == 34) | (p[i] == 92)
    return bad == 0


cdef inline Py_ssize_t number(cstr p, Py_ssize_t size) noexcept:
    """Return the value of decimal digits, or -1 if it is anything else or too long."""
    cdef Py_ssize_t value = 0, i
    if size <= 0 or size > LENGTH_DIGITS:
        return -1
    for i in range(size):
        if not 48 <= p[i] <= 57:
            return -1
        value = value * 10 + p[i] - 48
    return value


cdef inline double clock(clockid_t kind = CLOCK_MONOTONIC) noexcept:
    cdef timespec now
    clock_gettime(kind, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


async def _await(awaitable):
    await awaitable


# ── shared by all connections of a worker ────────────────────────────────────────────────────────

cdef class RememberedHead:
    """The values of a response's head that a whole answer needs."""
    cdef object head, status, ended
    cdef bytes block
    cdef Py_ssize_t length  # -1: no content-length was given
    cdef bint usable


cdef class RememberedOrigin:
    """The original request that a group of forwarding fields describes (see `Origin`), if the fields are simple."""
    cdef object client, scheme, port
    cdef tuple host  # as a field
    cdef bint simple, hosted


@cython.final
cdef class PlainTexts:
    """The texts of an access line that come from the client and its fields, and the values that they were made of."""
    cdef object client
    cdef bytes user, referer, agent
    cdef str before, after
    cdef Py_ssize_t size


cdef class PlainRequests:
    """Makes the handlers of connections. `make` makes the ordinary handler. Call `renew` after each `Context.tick`."""
    cdef object app, context, tasks, heads, make, loop, variables, note, access, meter, task_factory, now, turn
    cdef object flush_method, flush_pipelined_method, start_method, end_method, call_soon, root_path, raw_root_path
    cdef dict template, memory, made, origins, arguments, soon, state
    cdef set running
    cdef list gathered, pipelined, ready, touched
    cdef list lines, moment  # of access lines, see `PlainLines`; None unless their format is plain
    cdef object renew_moment, begin_lines, texts, escape
    cdef Py_ssize_t longest_line
    cdef bytes ending
    cdef public double gather_until  # of monotonic(), see `Writer`
    cdef double keep_alive, deadline
    cdef Py_ssize_t limit, small_head, most_fields, most_body, sent
    cdef bint timed, observed, ids
    cdef readonly Py_ssize_t requests

    def __init__(self, tasks, context, heads, limits, make):
        self.tasks, self.context, self.heads, self.make = tasks, context, heads, make
        self.app, self.note, self.access, self.meter = tasks._app, tasks._note, tasks.access, tasks.meter
        if tasks.lines is not None:
            (self.lines, self.moment, self.renew_moment, self.begin_lines, self.texts, self.escape, longest) = tasks.lines
            self.longest_line = sys.maxsize if longest is None else longest
        self.timed, self.observed, self.ids = tasks.timed, tasks.observed, tasks.ids is not None
        self.loop, self.variables, self.running = context.loop, context.variables, tasks.running
        self.limit = sys.maxsize if tasks._limit > sys.maxsize else <Py_ssize_t> tasks._limit
        self.small_head, self.most_fields = limits.small_head, min(limits.fields, MOST_FIELDS)
        # A longer body pauses reading until the application takes it.
        self.most_body = <Py_ssize_t> min(limits.body, HIGH_WATER)
        self.made, self.memory, self.origins, self.template = heads.made, {}, {}, {}
        self.gathered, self.pipelined, self.ready, self.touched = [], [], [], []
        self.task_factory = self.loop.get_task_factory
        self.arguments = {"loop": self.loop, "context": None}
        if EAGER:
            self.arguments["eager_start"] = True
        self.soon, self.call_soon = {"context": self.variables}, self.loop.call_soon
        self.state, self.root_path, self.raw_root_path = context.state, context.root_path, context.raw_root_path
        self.flush_method, self.flush_pipelined_method = self.flush, self.flush_pipelined
        self.start_method, self.end_method = self.start_ready, self.end_turn
        self.keep_alive = context.keep_alive
        self.renew()

    def begin(self, link):
        """Make the handler of a connection."""
        cdef PlainConnection connection = PlainConnection.__new__(PlainConnection)
        connection.shared, connection.link = self, link
        return connection

    def renew(self):
        """Take the time and the default fields from the context, and set the deadlines of connections."""
        cdef PlainConnection connection
        self.now = self.context.now
        self.deadline = self.context.now + self.keep_alive
        self.ending = field_lines(self.context.defaults.pairs) + b"\r\n\r\n"
        touched, self.touched = self.touched, []
        for connection in touched:
            if connection is not None:
                connection.touched = False
                connection.give_deadline()

    cdef soon_call(self, method):
        PyObject_Call(self.call_soon, (method,), self.soon)

    # The application's tasks: the same as in `Tasks`

    cdef start(self, PlainExchange exchange):
        if PySet_GET_SIZE(self.running) >= self.limit:
            self.tasks.start(exchange.ordinary())
            return
        if self.timed:
            exchange.started = monotonic()
        elif self.meter is not None:
            exchange.started = self.begun_turn()
        else:
            exchange.started = self.now
        self.running.add(exchange)
        if EAGER:
            self.ready.append(exchange)
            if PyList_GET_SIZE(self.ready) == 1:
                self.soon_call(self.start_method)
        else:
            self.run(exchange)

    def start_ready(self):
        ready, self.ready = self.ready, []
        for exchange in ready:
            self.run(exchange)

    cdef run(self, PlainExchange exchange):
        cdef object task
        context = PyContext_Copy(self.variables)
        if PyObject_CallNoArgs(self.task_factory) is None:
            PyDict_SetItem(self.arguments, "context", context)
            task = PyObject_Call(Task, (exchange,), self.arguments)
        else:  # the application has set a task factory (tracing)
            task = self.loop.create_task(exchange, context=context)
        if not exchange.finished:
            exchange.task = task
            if exchange.slow is not None:
                exchange.slow.task = task

    cdef object begun_turn(self):
        """Return the time of this turn of the loop, for all requests that begin or end in it."""
        if self.turn is None:
            self.turn = monotonic()
            self.soon_call(self.end_method)
        return self.turn

    def end_turn(self):
        self.turn = None
        self.meter.sent += self.sent
        self.sent = 0
        self.meter.end_turn(monotonic())

    cdef record(self, PlainExchange exchange):
        if self.timed:
            exchange.duration = monotonic() - exchange.started
        if self.meter is not None:
            exchange.memo.ended.append(exchange.started)
            self.sent += exchange.sent
            self.begun_turn()
        if self.lines is not None:
            self.log(exchange)
        elif self.access is not None:
            self.access(exchange)

    cdef log(self, PlainExchange exchange):
        """Put the access line into the batch of this turn; the record, if the line is not plain."""
        cdef bint first = PyList_GET_SIZE(self.lines) == 0
        if first:
            self.renew_moment()
        self.lines.append(self.line(exchange))
        if first:
            self.begin_lines()

    cdef object line(self, PlainExchange exchange):
        """Return what `format` makes of the record, or the record."""
        cdef PlainTexts texts = exchange.texts
        cdef str moment = <str> PyList_GET_ITEM(self.moment, 0), target = None, line
        cdef char numbers[48]
        cdef cstr raw = <cstr> PyBytes_AS_STRING(exchange.target)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(exchange.target), whole
        cdef char *p
        cdef int n
        if texts is None:
            return exchange
        if not is_printable(raw, size):
            target = self.escape[exchange.target]
            raw, size = <cstr> PyUnicode_1BYTE_DATA(target), PyUnicode_GET_LENGTH(target)
        if exchange.sent:
            n = sprintf(numbers, b' HTTP/1.1" %d %zd', <int> exchange.memo.status, exchange.sent)
        else:
            n = sprintf(numbers, b' HTTP/1.1" %d -', <int> exchange.memo.status)
        whole = PyUnicode_GET_LENGTH(exchange.method) + PyUnicode_GET_LENGTH(moment) + texts.size + size + n + 3
        if whole > self.longest_line:
            return exchange
        line = PyUnicode_New(whole, 127)
        p = put_text(<char *> PyUnicode_1BYTE_DATA(line), texts.before)
        p = put_text(p, moment)
        p = put(p, b' "', 2)
        p = put_text(p, exchange.method)
        p = put(p, b" ", 1)
        p = put(p, <const char *> raw, size)
        p = put(p, numbers, n)
        put_text(p, texts.after)
        return line

    # What proxies tell

    cdef RememberedOrigin origin(self, PyObject **told, int n):
        """Return the origin that the forwarding fields of a trusted peer describe."""
        cdef RememberedOrigin origin
        cdef PyObject *found
        cdef Py_ssize_t size = 0
        cdef int i
        key = PyTuple_New(n)
        for i in range(n):
            Py_INCREF(<object> told[i])
            PyTuple_SET_ITEM(key, i, <object> told[i])
        found = PyDict_GetItemWithError(self.origins, key)
        if found is not NULL:
            return <RememberedOrigin> found
        read = self.context.forwarding.read(dict(key))
        origin = RememberedOrigin.__new__(RememberedOrigin)
        origin.client, origin.scheme, origin.port = read.client, read.scheme, read.port
        origin.host = None if read.host is None else (b"host", read.host)
        origin.hosted = read.host is not None or read.port is not None
        origin.simple = read.prefix is None
        for _, value in key:
            size += len(value)
        if size <= forwarded.REMEMBERED_SIZE:
            if len(self.origins) >= forwarded.REMEMBERED:
                self.origins.clear()
            self.origins[key] = origin
        return origin

    # Answers

    cdef RememberedHead remembered(self, object status, list headers):
        """Return the head of a status and headers, or None if the ordinary exchange has not made it before."""
        cdef Py_ssize_t i, n = PyList_GET_SIZE(headers)
        cdef PyObject *found
        cdef RememberedHead memo
        key = PyTuple_New(n + 1)
        Py_INCREF(status)
        PyTuple_SET_ITEM(key, 0, status)
        for i in range(n):
            pair = <object> PyList_GET_ITEM(headers, i)
            Py_INCREF(pair)
            PyTuple_SET_ITEM(key, i + 1, pair)
        try:
            found = PyDict_GetItemWithError(self.memory, key)
        except TypeError:  # pairs that are lists, or values that are no bytes
            return None
        if found is not NULL:
            return <RememberedHead> found
        head = self.made.get(key)
        if head is None:
            return None
        memo = RememberedHead.__new__(RememberedHead)
        memo.head, memo.block, memo.status = head, head.block, head.status
        memo.length = -1 if head.length is None else min(head.length, sys.maxsize)
        memo.usable = head.plain and not head.bodiless
        memo.ended = None if self.meter is None else self.meter.ended[head.status // 100]
        if len(self.memory) >= 512:
            self.memory.clear()
        self.memory[key] = memo
        return memo

    def flush(self):
        """Write the answers that were held back until the end of the turn."""
        cdef PlainConnection connection
        gathered, self.gathered = self.gathered, []
        for connection in gathered:
            connection.flush()

    def flush_pipelined(self):
        """Write the answers to pipelined requests that were held back, where this turn added none."""
        cdef PlainConnection connection
        pipelined, self.pipelined = self.pipelined, []
        for connection in pipelined:
            if connection.used == connection.seen:
                connection.flush()
            elif connection.holding:
                connection.seen = connection.used
                self.pipelined.append(connection)
        if self.pipelined:
            self.soon_call(self.flush_pipelined_method)


# ── the application's side ───────────────────────────────────────────────────────────────────────

cdef object given(PyObject *result):
    """Return the new reference that a `tp_iternext` gave; without one raise StopIteration, as `next` does."""
    if result is NULL:
        raise StopIteration
    outcome = <object> result
    Py_DECREF(outcome)
    return outcome


@cython.freelist(128)
cdef class PlainCall:
    """The awaitable of `send(message)` or `receive()`. Like a coroutine, it does nothing before it is awaited."""
    cdef PlainExchange exchange
    cdef object message  # None for `receive()`
    cdef object inner  # the iterator that continues it, if it has to wait
    cdef bint begun

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return given(next_of_call(<PyObject *> self))

    cdef begin(self):
        if self.begun:
            raise RuntimeError("cannot reuse already awaited coroutine")
        self.begun = True
        inner = self.exchange.received() if self.message is None else self.exchange.take(self.message)
        if inner is not None:
            self.inner = inner.__await__()

    def send(self, value):
        if self.inner is None:
            if value is not None:
                raise TypeError("can't send non-None value to a just-started coroutine")
            return self.__next__()
        return self.inner.send(value)

    def throw(self, kind, value=None, traceback=None):
        self.begun = True
        if self.inner is not None:
            return self.inner.throw(kind if value is None else value)
        raise kind if value is None else value

    def close(self):
        self.begun = True
        if self.inner is not None:
            self.inner.close()

    @property
    def cr_frame(self):
        """None: it has no frame of its own."""

    @property
    def cr_await(self):
        """The awaitable that it waits for, for tools that print stacks."""
        return self.inner


cdef PyObject *next_of_call(PyObject *this) except? NULL:
    """Take the next step of a call (`tp_iternext`). At its end return NULL; set StopIteration only for a result.

    It is not a `raise` in Cython, which would make a traceback with a frame, and cost as much as the step.
    """
    cdef PlainCall call = <PlainCall> this
    cdef PyObject *result = NULL
    if call.inner is None:
        call.begin()
        if call.inner is None:
            if call.message is None:
                body = call.exchange.take_body()
                PyErr_SetObject(PyExc_StopIteration, {"type": "http.request", "body": body, "more_body": False})
            return NULL
    if PyIter_Send(call.inner, None, &result) == 1:
        return result
    outcome = <object> result
    Py_DECREF(outcome)
    if outcome is not None:
        PyErr_SetObject(PyExc_StopIteration, outcome)
    return NULL


(<PyTypeObject *> PlainCall).tp_iternext = next_of_call


@cython.freelist(256)
cdef class PlainExchange:
    """A plain request and its answer: a `Request`, an `AccessRecord`, and the coroutine that its task runs."""
    cdef PlainConnection conn
    cdef object coro, slow, scheme
    cdef RememberedHead memo
    cdef bytes data, body  # `data` is the head; `body` is None if there is none, or the application has taken it
    cdef dict forwarding  # only if the ordinary handler has to read it
    cdef tuple host  # the field that replaces Host
    cdef list fields, waiters  # futures of `receive()`
    cdef PlainTexts texts  # of the access line
    cdef int phase
    cdef bint asked, finished, keep_alive
    cdef readonly object task, scope, started, duration, response_headers, client
    cdef readonly str method
    cdef readonly bytes target
    cdef readonly Py_ssize_t sent
    cdef Py_ssize_t length  # of the request's body

    # As the coroutine of a task

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return given(next_of_task(<PyObject *> self))

    cdef PyObject *step(self) except? NULL:
        cdef PyObject *result = NULL
        cdef int status = 0
        cdef PlainRequests shared
        try:
            if self.coro is None:
                shared = self.conn.shared
                if shared.note is not None:
                    shared.note(self.target)
                coro = shared.app(self.scope, self.receive, self.send)
                self.coro = coro if type(coro) is CoroutineType else _await(coro)
            status = PyIter_Send(self.coro, None, &result)
        except BaseException as error:
            self.fail(error)
            status = -1
        if status == 1:
            return result
        if status == 0:
            Py_DECREF(<object> result)
            self.returned_to_server()
        return NULL

    def throw(self, kind, value=None, traceback=None):
        error = kind if value is None else value
        try:
            if self.coro is None:  # cancelled before its first step
                raise error
            return self.coro.throw(error)
        except StopIteration:
            self.returned_to_server()
        except BaseException as failure:
            self.fail(failure)
        raise StopIteration

    def close(self):
        if self.coro is not None:
            self.coro.close()

    def __getattr__(self, name):  # cr_frame and the like are those of the application's coroutine
        if self.coro is None or not name.startswith(("cr_", "__")):
            raise AttributeError(name)
        return getattr(self.coro, name)

    cdef returned_to_server(self):
        if self.slow is not None:
            if self.slow.state is not STATES[DONE]:
                self.slow.returned()
        elif self.phase != DONE:
            self.ordinary().returned()
        self.end()

    cdef fail(self, error):
        try:
            self.ordinary().failed(error)
        finally:
            self.end()

    cdef end(self):
        cdef PlainRequests shared = self.conn.shared
        self.finished = True
        shared.requests += 1
        self.task = self.coro = None  # a task keeps its coroutine, which would be a cycle
        if self.slow is None:
            shared.running.discard(self)
        else:
            shared.running.discard(self.slow)
            self.slow.task = None

    # As the application's channels

    def receive(self):
        """ASGI `receive()`."""
        cdef PlainCall call = PlainCall.__new__(PlainCall)
        call.exchange = self
        return call

    def send(self, message):
        """ASGI `send()`. With None it is a coroutine's `send(None)`, which tasks written in Python call."""
        if message is None:
            return self.__next__()
        cdef PlainCall call = PlainCall.__new__(PlainCall)
        call.exchange, call.message = self, message
        return call

    cdef object received(self):
        if self.slow is not None:
            return self.slow.receive()
        if self.asked or self.phase == DONE:
            return until_disconnect(self)
        self.asked = True
        return None

    cdef forget(self, waiter):
        if self.slow is None:
            self.waiters.remove(waiter)
        else:
            self.slow.waiters.remove(waiter)

    cdef wake(self):
        """See `Exchange.wake`."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)

    cdef bytes take_body(self):
        body, self.body = self.body, None
        return b"" if body is None else body

    cdef object take(self, message):
        """Take a message of the application; return None, or the awaitable that continues with it."""
        if self.slow is None and type(message) is dict:
            kind = (<dict> message)["type"]
            if self.phase == HEADED or self.phase == BODY:
                if kind == "http.response.body" and self.piece(<dict> message):
                    return self.conn.link.until_writable() if self.conn.paused else None
            elif self.phase == START and kind == "http.response.start" and self.head(<dict> message):
                return None
        slow = self.ordinary()
        if slow.parting is None and slow.state is STATES[BODY] and message["type"] == "http.response.body":
            http = slow.connection  # the same as in `Exchange.send`, whose coroutine would cost more than the piece
            http.send_data(slow, slow.body(message))
            return http.until_writable() if http.write_paused else None
        return slow.send(message)

    cdef bint head(self, dict message) except -1:
        """Keep the head of the answer, and return True, if it is plain and was sent before."""
        cdef PyObject *status = PyDict_GetItem(message, "status")
        cdef PyObject *headers = PyDict_GetItem(message, "headers")
        cdef RememberedHead memo
        if status is NULL or headers is NULL or "trailers" in message:
            return False
        if type(<object> headers) is not list:
            return False
        memo = self.conn.shared.remembered(<object> status, <list> headers)
        if memo is None or not memo.usable:
            return False
        self.memo = memo
        self.response_headers = <object> headers
        self.phase = HEADED
        return True

    cdef bint piece(self, dict message) except -1:
        """Send a piece of the body, the first with the head, and return True, if nothing is rare about it."""
        cdef PyObject *found = PyDict_GetItemWithError(message, "body")
        cdef PyObject *more = PyDict_GetItemWithError(message, "more_body")
        cdef bint last = more is NULL or not <object> more
        cdef bytes body
        cdef RememberedHead memo = self.memo
        cdef Py_ssize_t size, total
        cdef PlainConnection conn = self.conn
        if conn.current is not self:
            return False
        if found is NULL:
            body = b""
        elif type(<object> found) is bytes:
            body = <bytes> found
        else:
            body = as_bytes("http.response.body: body", <object> found)
        size = PyBytes_GET_SIZE(body)
        total = self.sent + size
        if memo.length >= 0 and total != memo.length and (last or total > memo.length):
            return False
        if self.phase == BODY:
            self.sent = total
            if last:
                self.phase = DONE
            conn.write_piece(None, body, memo.length < 0, last, self.keep_alive)
        elif self.method == "HEAD" or conn.shared.context.draining:
            return False
        elif last and size >= JOIN_LIMIT:
            self.sent, self.phase = size, DONE
            conn.write_large(opening(memo, size, self.keep_alive, conn.shared.ending, b""), body, False, True)
        elif last:
            self.sent, self.phase = size, DONE
            conn.write_answer(opening(memo, size, self.keep_alive, conn.shared.ending, body), self.keep_alive)
        else:
            self.sent, self.phase = size, BODY
            head = opening(memo, -1, self.keep_alive, conn.shared.ending, b"")
            conn.write_piece(head, body, memo.length < 0, False, self.keep_alive)
        if last:
            conn.answered(self)
        return True

    # As a request

    cdef object ordinary(self):
        """Return the ordinary exchange, which continues with this request from now on."""
        cdef PlainConnection conn = self.conn
        cdef PlainRequests shared = conn.shared
        if self.slow is not None:
            return self.slow
        conn.settle()
        conn.flush()
        http = conn.ordinary()
        # Not made with the scope, which the application may have emptied.
        slow = Exchange(http, shared.heads, {"client": self.client}, self.target, self.method, "1.1", self.headers,
                        self.keep_alive)
        slow.scope, slow.task = self.scope, self.task
        slow.launched = slow.complete = True
        slow._read = self.asked
        if self.length:
            slow.request_body = RequestBody(self.length, continue_expected=False)
            slow.request_body.received = self.length
            if self.body is not None:
                slow.request_body.add(self.take_body(), http)
        if self.started is not None:
            slow.started = self.started
        if self.phase != START:
            slow.head, slow.status, slow.length = self.memo.head, self.memo.status, self.memo.head.length
            slow.response_headers = self.response_headers
            slow.state, slow.sent = STATES[self.phase], self.sent
        if self.waiters:
            slow.waiters = self.waiters
        shared.tasks.replace(self, slow)
        if conn.current is self:
            conn.current = None
            http.current = slow
            if not self.keep_alive:
                http.reader.stop()
            elif conn.rest is not None:
                conn.pass_on()
        self.slow = slow
        return slow

    @property
    def headers(self):
        """The fields of the request."""
        cdef PlainExchange again
        if self.fields is None:
            again = PlainExchange.__new__(PlainExchange)
            again.conn, again.host = self.conn, self.host
            self.conn.parse(self.data, 0, again, False)
            self.fields = again.fields
        return self.fields

    version = "1.1"
    request_id = None

    @property
    def status(self):
        """The status of the answer."""
        return 0 if self.memo is None else self.memo.status

    @property
    def connection(self):
        """See `AccessRecord`."""
        return self.conn

    @property
    def state(self):
        """See `Request`."""
        return STATES[self.phase] if self.slow is None else self.slow.state

    @property
    def begun(self):
        """See `Request`."""
        return self.phase != START

    @property
    def answered(self):
        """See `Request`."""
        return self.phase == DONE

    @property
    def open_ended(self):
        """See `Request`."""
        return (self.phase == HEADED or self.phase == BODY) and self.memo.length < 0

    def progress(self):
        """See `Request`."""
        return None if self.phase == DONE or self.conn.paused else self.sent + self.length

    def cancel(self, reason):
        """See `Request`."""
        if self.task is not None:
            self.task.cancel(reason)

    def end_stream(self):
        """See `Request`."""
        self.ordinary().end_stream()

    def abandon(self):
        """See `Request`."""
        return self.ordinary().abandon()

    def refuse(self, status):
        """See `Request`."""
        self.ordinary().refuse(status)

    def give_up(self, status):
        """See `Request`."""
        return self.ordinary().give_up(status)


cdef PyObject *next_of_task(PyObject *this) except? NULL:
    """See `next_of_call`."""
    return (<PlainExchange> this).step()


(<PyTypeObject *> PlainExchange).tp_iternext = next_of_task


Coroutine.register(PlainCall)
Coroutine.register(PlainExchange)


async def until_disconnect(PlainExchange exchange):
    """Return the message that no more comes, when the answer is complete or the client has left."""
    if exchange.slow is None and exchange.phase != DONE:
        waiter = exchange.conn.shared.loop.create_future()
        if exchange.waiters is None:
            exchange.waiters = []
        exchange.waiters.append(waiter)
        try:
            await waiter
        finally:
            exchange.forget(waiter)
    return {"type": "http.disconnect"} if exchange.slow is None else await exchange.slow.receive()


cdef bytes opening(RememberedHead memo, Py_ssize_t size, bint keep_alive, bytes ending, bytes body):
    """Return the bytes of a head: block, framing, Connection, default fields; and the body behind it (see `Encoder.first`).

    `size` is that of the whole body, -1 if it is not known.
    """
    cdef bytes framing = b""
    if memo.length < 0:
        framing = b"\r\ntransfer-encoding: chunked" if size < 0 else b"\r\ncontent-length: %d" % size
    if not keep_alive:
        framing += b"\r\nconnection: close"
    cdef Py_ssize_t a = PyBytes_GET_SIZE(memo.block), b = PyBytes_GET_SIZE(framing), c = PyBytes_GET_SIZE(ending)
    cdef Py_ssize_t d = PyBytes_GET_SIZE(body)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, a + b + c + d)
    cdef char *p = PyBytes_AS_STRING(out)
    memcpy(p, PyBytes_AS_STRING(memo.block), a)
    memcpy(p + a, PyBytes_AS_STRING(framing), b)
    memcpy(p + a + b, PyBytes_AS_STRING(ending), c)
    memcpy(p + a + b + c, PyBytes_AS_STRING(body), d)
    return out


cdef inline char *put(char *p, const char *source, Py_ssize_t size) noexcept:
    memcpy(p, source, size)
    return p + size


cdef inline char *put_text(char *p, str text) noexcept:
    """Write a text of ASCII."""
    return put(p, <const char *> PyUnicode_1BYTE_DATA(text), PyUnicode_GET_LENGTH(text))


cdef char *put_line(char *p, Py_ssize_t size) noexcept:
    """Write the line before a chunk."""
    cdef int shift = 0
    while size >> shift > 15:
        shift += 4
    while shift >= 0:
        p[0] = b"0123456789abcdef"[(size >> shift) & 15]
        p += 1
        shift -= 4
    return put(p, b"\r\n", 2)


cdef char *put_piece(char *p, bytes body, bint chunked, bint last) noexcept:
    """Write a piece of a body (see `Encoder.piece`)."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(body)
    if not chunked:
        return put(p, PyBytes_AS_STRING(body), size)
    if size:
        p = put(put_line(p, size), PyBytes_AS_STRING(body), size)
        p = put(p, b"\r\n", 2)
    return put(p, b"0\r\n\r\n", 5) if last else p


cdef bytes framed(bytes head, bytes body, bint chunked, bint last):
    """Return a piece of a body, behind the head if there is one (see `Encoder.piece`)."""
    cdef char line[FRAME]
    cdef Py_ssize_t size = PyBytes_GET_SIZE(body), more = 0 if head is None else PyBytes_GET_SIZE(head)
    cdef bytes out
    cdef char *p
    if chunked and size:
        more += put_line(line, size) - line + 2
    if chunked and last:
        more += 5
    if more == 0:
        return body
    out = PyBytes_FromStringAndSize(NULL, more + size)
    p = PyBytes_AS_STRING(out)
    if head is not None:
        p = put(p, PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))
    put_piece(p, body, chunked, last)
    return out


# ── the client's side ────────────────────────────────────────────────────────────────────────────

cdef class PlainConnection:
    """The handler of a connection. It serves plain requests, and gives all else to the ordinary handler."""
    cdef PlainRequests shared
    cdef PlainExchange current
    cdef object link, http, write, client
    cdef dict template, extensions
    cdef PlainTexts texts
    cdef bytes rest  # requests that came together with the current one; None without them
    cdef Py_ssize_t at  # the place of the next in it
    # Held back until the end of the turn: an answer, or a stream's first piece; or else what `room` has of a stream, or of
    # the answers to pipelined requests.
    cdef bytes out, room
    cdef Py_ssize_t used  # bytes of `room`, which has HOLD_BYTES; 0 without it
    cdef Py_ssize_t seen  # as it was when `flush_pipelined` came by
    cdef double hold_until  # of COARSE_CLOCK
    cdef double deadline
    cdef Py_ssize_t place  # among those that are touched
    cdef bint touched, paused, trusted, introduced, holding  # pieces of this turn
    cdef public object logged

    # A `Handler`

    def data_received(self, data):
        """Serve a plain request, or give the bytes to the ordinary handler."""
        if self.current is None and not self.paused and type(data) is bytes and (self.http is None or self.quiet()):
            if self.take(<bytes> data, 0):
                return
        self.fall_back().data_received(data)

    cdef bint take(self, bytes data, Py_ssize_t at) except -1:
        """Begin the plain request at a place in `data`, keep those behind it, and return True, or do nothing."""
        cdef PlainExchange exchange = PlainExchange.__new__(PlainExchange)
        cdef Py_ssize_t end
        exchange.conn = self
        end = self.parse(data, at, exchange, True)
        if end == 0 or (end < PyBytes_GET_SIZE(data) and not self.begins(exchange)):
            return False
        self.rest, self.at = None if end == PyBytes_GET_SIZE(data) else data, end
        self.begin(exchange)
        return True

    cdef take_next(self):
        """Begin the next of the pipelined requests; the ordinary handler gets all that are left if it is not plain."""
        if self.paused or not self.take(self.rest, self.at):
            self.pass_on()

    cdef pass_on(self):
        """Give the ordinary handler the requests that are left, for the next turn: this may be inside `send()`."""
        rest, self.rest = self.rest, None
        self.fall_back().reader.read_later(rest, self.at)

    def eof_received(self):
        """See `Handler`."""
        self.flush()
        return False if self.current is None and self.http is None else self.fall_back().eof_received()

    def writable(self):
        """See `Handler`."""
        if self.http is not None:
            self.http.writable()

    def expire(self):
        """See `Handler`."""
        self.fall_back().expire()

    def postpone(self, seconds):
        """Put off the deadline that `settle` has not set yet."""
        self.deadline += seconds

    def cut(self):
        """See `Handler`."""
        self.drop()
        if self.http is not None:
            self.http.cut()

    def lost(self):
        """See `Handler`."""
        self.drop()
        self.write = None
        self.untouch()
        if self.current is not None:
            self.current.ordinary()
        if self.http is not None:
            self.http.lost()

    @property
    def idle(self):
        """Whether no request is under way."""
        self.flush()
        return self.current is None and (self.http is None or self.http.idle)

    @property
    def portable(self):
        """True: HTTP/1 has no state between requests."""
        return True

    @property
    def write_paused(self):
        """Whether the client reads too slowly."""
        return self.paused

    @write_paused.setter
    def write_paused(self, bint paused):
        self.paused = paused
        if self.http is not None:
            self.http.write_paused = paused

    def __getattr__(self, name):
        return getattr(self.fall_back(), name)

    cdef ordinary(self):
        """Return the ordinary handler, which is made when it is first needed."""
        if self.http is None:
            self.http = self.shared.make(self.link)
            self.http.write_paused = self.paused
        return self.http

    cdef fall_back(self):
        """Give the current request, if any, and those behind it to the ordinary handler, and return that handler."""
        rest, self.rest = self.rest, None
        if self.current is not None:
            self.current.ordinary()
        self.settle()
        self.flush()
        http = self.ordinary()
        if rest is not None:
            http.data_received(rest[self.at:])
        return http

    cdef bint quiet(self) except -1:
        """Whether the ordinary handler waits for another request."""
        return self.http.idle and self.http.reader.phase is BETWEEN

    cdef introduce(self):
        """Take the values of the connection that all its requests need, before the first."""
        cdef PlainRequests shared = self.shared
        context, link = shared.context, self.link
        self.introduced = True
        self.client = link.client
        self.write = link.transport.write
        self.extensions = link.extensions
        self.trusted = context.forwarding is not None and context.forwarding.trusts(link.client)
        template = shared.template
        if template.get("server") != link.server or template.get("scheme") != link.scheme or link.tls:
            template = {
                "type": "http", "asgi": None, "http_version": "1.1", "server": link.server, "client": None,
                "scheme": link.scheme, "root_path": context.root_path, "method": GET, "path": None, "raw_path": None,
                "query_string": b"", "headers": None, "state": None, "extensions": None,
            }
            if not link.tls:
                shared.template = template
        self.template = template

    cdef bint begins(self, PlainExchange exchange) except -1:
        """Whether the request needs nothing that only the ordinary handler does before its task."""
        return exchange.forwarding is None and not self.shared.ids

    cdef begin(self, PlainExchange exchange):
        cdef PlainRequests shared = self.shared
        self.touch()
        self.deadline = INFINITY
        if self.begins(exchange):
            if exchange.length:
                shared.context.meter.received += exchange.length
            self.current = exchange
            shared.start(exchange)
            return
        self.settle()
        self.flush()
        http = self.ordinary()
        try:
            http.on_request(exchange.method, exchange.target, "1.1", exchange.headers, exchange.keep_alive,
                            exchange.forwarding or {}, {} if exchange.length else None, exchange.length)
            if exchange.length:
                http.on_body(exchange.body)
                http.on_end()
        except ClientError as error:
            http.refuse(error)
            return
        if not exchange.keep_alive:
            http.reader.stop()
        http.writable()  # starts the request

    # Answers

    cdef write_answer(self, bytes data, bint gather):
        """Write an answer; hold it until the end of the turn if another was just written (see `Writer`).

        It is held until a turn without an answer if pipelined requests are left.
        """
        if self.rest is not None:
            self.hold_answer(data)
            return
        if self.used or self.out is not None:
            self.write(self.taken() + data)
            return
        if self.http is not None and self.link.writer.held is not None:
            self.link.writer.write(data)
            return
        if not gather:  # `answered` closes now
            getattr(self.link.transport, "write_last", self.write)(data)
        elif self.gathers():
            self.out = data
            self.flush_soon()
        else:
            self.write(data)

    cdef hold_answer(self, bytes data):
        """Hold an answer together with those to the pipelined requests behind it."""
        cdef PlainRequests shared = self.shared
        if not self.holding:
            if self.http is not None and self.link.writer.held is not None:
                self.link.writer.flush()
            self.holding, self.hold_until, self.seen = True, clock(COARSE_CLOCK) + HOLD_SECONDS, 0
            shared.pipelined.append(self)
            if PyList_GET_SIZE(shared.pipelined) == 1:
                shared.soon_call(shared.flush_pipelined_method)
        self.hold(data, b"", False, False)
        if clock(COARSE_CLOCK) > self.hold_until:
            self.write_held()

    cdef bint gathers(self) except -1:
        """Whether to write at the end of the turn, because an answer was just written. If not, write those that wait."""
        cdef PlainRequests shared = self.shared
        cdef double now = clock()
        cdef bint soon = now < shared.gather_until
        shared.gather_until = now + GATHER_SECONDS
        if soon and PyList_GET_SIZE(shared.gathered) < MOST_GATHERED:
            return True
        if shared.gathered:
            shared.flush()
        if shared.context.gathered:
            shared.context.write_gathered()
        return False

    cdef flush_soon(self):
        """Have `flush` called at the end of the turn."""
        cdef PlainRequests shared = self.shared
        shared.gathered.append(self)
        if PyList_GET_SIZE(shared.gathered) == 1:
            shared.soon_call(shared.flush_method)

    cdef write_piece(self, bytes head, bytes body, bint chunked, bint last, bint gather):
        """Write a piece of a stream; hold it until the end of the turn unless it is the first (see `Writer`).

        The first is held, too, if an answer was just written. So is a short answer's last piece.
        """
        cdef bytes data
        cdef bint waits
        if head is not None and self.http is not None and self.link.writer.held is not None:
            self.link.writer.flush()
        if PyBytes_GET_SIZE(body) >= JOIN_LIMIT:
            self.write_large(head, body, chunked, last)
        elif not self.holding:
            data = framed(head, body, chunked, last)
            if data and last:
                self.write_answer(data, gather)
            elif data:
                waits = self.gathers()
                self.holding, self.hold_until = True, clock(COARSE_CLOCK) + HOLD_SECONDS
                self.flush_soon()
                if waits:
                    self.out = data if self.out is None else self.out + data
                else:
                    self.write(data)
        else:
            self.hold(head, body, chunked, last)
            if not last or self.rest is not None:
                if clock(COARSE_CLOCK) > self.hold_until:
                    self.write_held()
            elif gather and self.used < JOIN_LIMIT and self.gathers():
                if self.used:
                    self.out = self.taken()
            else:
                self.write_held()

    cdef hold(self, bytes head, bytes body, bint chunked, bint last):
        """Copy a piece below JOIN_LIMIT into `room`, behind those that wait."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(body) + (0 if head is None else PyBytes_GET_SIZE(head))
        cdef char *p
        if size == 0 and not (chunked and last):
            return
        size += FRAME
        if self.out is not None and PyBytes_GET_SIZE(self.out) + size > HOLD_BYTES or self.used + size > HOLD_BYTES:
            self.write_held()
            if size > HOLD_BYTES:  # for the fields that are configured
                self.write(head)
                head = None
        if self.room is None:
            self.room = PyBytes_FromStringAndSize(NULL, HOLD_BYTES)
        p = PyBytes_AS_STRING(self.room) + self.used
        if self.out is not None:
            p = put(p, PyBytes_AS_STRING(self.out), PyBytes_GET_SIZE(self.out))
            self.out = None
        if head is not None:
            p = put(p, PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))
        self.used = put_piece(p, body, chunked, last) - PyBytes_AS_STRING(self.room)
        if self.used == 0:
            self.room = None

    cdef write_large(self, bytes head, bytes body, bint chunked, bint last):
        """Write a piece that is too large to be copied, and what waits before it, at once."""
        cdef list pieces = [self.taken() + (head or b"") + (b"%x\r\n" % PyBytes_GET_SIZE(body) if chunked else b""), body]
        if not pieces[0]:
            del pieces[0]
        if chunked:
            pieces.append(b"\r\n0\r\n\r\n" if last else b"\r\n")
        self.link.writer.write_pieces(pieces)

    cdef bytes taken(self):
        """Return the bytes that were held back, which are no more."""
        cdef PyObject *room = <PyObject *> self.room
        cdef Py_ssize_t used = self.used
        cdef bytes data = self.out
        if used == 0:
            self.out = None
            return b"" if data is None else data
        Py_INCREF(self.room)
        self.room, self.used = None, 0
        _PyBytes_Resize(&room, used)
        data = <bytes> room
        Py_DECREF(data)
        return data

    cdef write_held(self):
        """Write the bytes that were held back."""
        if self.used or self.out is not None:
            self.hold_until = clock(COARSE_CLOCK) + HOLD_SECONDS
            self.write(self.taken())

    cdef flush(self):
        """Write the bytes that were held back until the end of the turn, and hold no more."""
        self.holding = False
        self.write_held()

    cdef drop(self):
        """Let go of what was held back, and of requests that are left: the connection has ended."""
        self.out = self.room = self.rest = None
        self.used, self.holding = 0, False

    cdef answered(self, PlainExchange exchange):
        """Record a complete answer, and wait for the next request or close."""
        cdef PlainRequests shared = self.shared
        if shared.observed:
            shared.record(exchange)
        self.current = exchange.body = None
        if exchange.waiters:
            exchange.wake()
        if self.rest is not None:
            self.take_next()
        elif exchange.keep_alive:
            self.deadline = shared.deadline
            self.touch()
        else:
            self.settle()
            self.link.close()

    # Deadlines

    cdef touch(self):
        """Have the next `renew` give the connection its deadline."""
        if not self.touched:
            self.touched = True
            self.place = PyList_GET_SIZE(self.shared.touched)
            self.shared.touched.append(self)

    cdef untouch(self):
        """Be kept for that no longer: those that end within a second would be in memory, all of them."""
        if self.touched:
            self.touched = False
            self.shared.touched[self.place] = None

    cdef settle(self):
        """Set the connection's deadline, which was kept here since the last request began or ended."""
        if self.touched:
            self.untouch()
            self.give_deadline()

    cdef give_deadline(self):
        if self.link.open:
            self.link.awaited = NOTHING if self.deadline == INFINITY else NEXT_REQUEST
            self.link.deadline = self.deadline

    # The head

    cdef Py_ssize_t parse(self, bytes data, Py_ssize_t at, PlainExchange exchange, bint scoped) except -1:
        """Fill an exchange with the request at a place; return where it ends, or 0 if it is not a whole plain one.

        Nor is it plain if requests behind it may not be read, or not in this turn.
        If not `scoped`, fill it with the fields alone; `data` is then a head that has passed before.
        """
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data) - at
        cdef cstr start = <cstr> PyBytes_AS_STRING(data) + at
        cdef cstr p = start, end = start + size, target, target_end, query = NULL, colon, first, last
        cdef PlainRequests shared = self.shared
        cdef bint percent = False, connected = False, measured = False
        cdef int n = 0, hosted = -1, told_of = 0, i, meaning, place
        cdef Py_ssize_t length, body = 0
        cdef unsigned char low[LONGEST_NAME]
        cdef str method
        cdef bytes name, value
        cdef PyObject *pairs[MOST_FIELDS]
        cdef PyObject *told[MOST_TOLD]
        cdef PyObject *waited = NULL
        cdef list headers
        if size < 18:
            return 0
        if size > shared.small_head:  # the head may be short, and a body follow
            end = start + shared.small_head
        if memcmp(p, b"GET ", 4) == 0:
            method = GET
            p += 4
        else:
            while p < end and LOWER[p[0]]:
                p += 1
            if p == end or p[0] != 32:
                return 0
            found = METHODS.get(data[at:at + (p - start)])
            if found is None:
                return 0
            method = found
            p += 1
        target = p
        while p < end and 32 < p[0] < 127 and p[0] != 35:
            if p[0] == 63 and query is NULL:
                query = p
            elif p[0] == 37:
                percent = True
            p += 1
        if end - p < 13 or target[0] != 47 or memcmp(p, b" HTTP/1.1\r\n", 11):
            return 0
        target_end = p
        p += 11
        exchange.keep_alive = True
        try:
            while p[0] != 13:
                last = <cstr> memchr(p, 10, end - p)
                if last is NULL or last[-1] != 13 or n >= shared.most_fields:
                    return 0
                colon = <cstr> memchr(p, 58, last - p)
                if colon is NULL:
                    return 0
                place = lower_name(p, colon - p, low)
                if place == -2:
                    return 0
                length = colon - p
                first = colon + 1
                p = last + 1
                last -= 1
                while first < last and (first[0] == 32 or first[0] == 9):
                    first += 1
                while last > first and (last[-1] == 32 or last[-1] == 9):
                    last -= 1
                meaning = ORDINARY if place < 0 else MEANING[place]
                if meaning == NOT_PLAIN or p >= end:
                    return 0
                if place >= 0 and LAST[place] is not NULL and is_value_of(LAST[place], first, last - first):
                    pair = <object> LAST[place]
                elif not is_clean(first, last - first) or (
                    meaning == HOST and not is_good_host(first, last - first)
                ):
                    return 0
                else:
                    name = <bytes> KNOWN[place] if place >= 0 else PyBytes_FromStringAndSize(<char *> low, length)
                    pair = (name, PyBytes_FromStringAndSize(<char *> first, last - first))
                    if place >= 0 and meaning != SECRET and last - first <= LONGEST_KEPT:
                        Py_XDECREF(LAST[place])
                        Py_INCREF(pair)
                        LAST[place] = <PyObject *> pair
                Py_INCREF(pair)
                pairs[n] = <PyObject *> pair
                n += 1
                if meaning == HOST:
                    if hosted >= 0:
                        return 0
                    hosted = n - 1
                elif meaning == CONNECTION:
                    value = <bytes> (<tuple> pair)[1]
                    if connected or not (value == b"keep-alive" or value == b"Keep-Alive" or value == b"close"):
                        return 0
                    connected = True
                    exchange.keep_alive = value != b"close"
                elif meaning == LENGTH:
                    body = number(first, last - first)
                    if measured or not 0 <= body <= shared.most_body:
                        return 0
                    measured = True
                elif meaning == FORWARDING and (self.trusted or not self.introduced):
                    for i in range(told_of):
                        if PyTuple_GET_ITEM(<object> told[i], 0) is PyTuple_GET_ITEM(pair, 0):  # of the table
                            return 0
                    told[told_of] = <PyObject *> pair
                    told_of += 1
                elif meaning == WAITED and (self.trusted or not self.introduced):
                    if waited is not NULL:
                        return 0
                    waited = <PyObject *> pair
            if end - p < 2 or p[1] != 10 or hosted < 0:
                return 0
            p += 2
            if scoped and start + size - p != body:
                if start + size - p < body or not exchange.keep_alive or PyBytes_GET_SIZE(data) > MOST_PIPELINED:
                    return 0
            headers = PyList_New(n)
            for i in range(n):
                Py_INCREF(<object> pairs[i])
                PyList_SET_ITEM(headers, i, <object> pairs[i])
        finally:
            for i in range(n):
                Py_DECREF(<object> pairs[i])
        if scoped:
            if not self.introduced:
                self.introduce()
            exchange.method = method
            exchange.data = data if p - start == PyBytes_GET_SIZE(data) else PyBytes_FromStringAndSize(<char *> start, p - start)
            if body:
                exchange.length = body
                exchange.body = PyBytes_FromStringAndSize(<char *> p, body)
            exchange.client = self.client
            if self.trusted and (told_of or waited is not NULL):
                self.apply_origin(exchange, told, told_of, waited, <tuple> PyList_GET_ITEM(headers, hosted))
        if exchange.host is not None:
            if hosted:
                headers.insert(0, headers.pop(hosted))
            headers[0] = exchange.host
        if not scoped:
            exchange.fields = headers
            return at + (p - start) + body
        if shared.lines is not None:
            exchange.texts = self.texts_of(headers, exchange.client)
        elif shared.access is not None:
            exchange.fields = headers[:]
        self.make_scope(exchange, target, target_end, query, percent, headers)
        return at + (p - start) + body

    cdef PlainTexts texts_of(self, list headers, object client):
        """Return the texts of access lines that depend on the client and its fields, which mostly repeat themselves."""
        cdef bytes user = None, referer = None, agent = None
        cdef PyObject *name
        cdef tuple pair
        cdef PlainTexts texts = self.texts
        for pair in headers:
            name = <PyObject *> PyTuple_GET_ITEM(pair, 0)
            if name is AGENT:
                agent = <bytes> PyTuple_GET_ITEM(pair, 1)
            elif name is REFERER:
                referer = <bytes> PyTuple_GET_ITEM(pair, 1)
            elif name is AUTHORIZATION:
                user = <bytes> PyTuple_GET_ITEM(pair, 1)
        if texts is not None and texts.client is client and texts.agent == agent:
            if texts.referer == referer and texts.user == user:
                return texts
        texts = PlainTexts.__new__(PlainTexts)
        texts.client, texts.user, texts.referer, texts.agent = client, user, referer, agent
        named = ((<object> AUTHORIZATION, user), (<object> REFERER, referer), (<object> AGENT, agent))
        given = [pair for pair in named if pair[1] is not None]
        texts.before, texts.after = self.shared.texts(client, given)
        assert texts.before.isascii() and texts.after.isascii()
        texts.size = PyUnicode_GET_LENGTH(texts.before) + PyUnicode_GET_LENGTH(texts.after)
        self.texts = texts if sum([len(pair[1]) for pair in given]) <= MOST_KEPT else None
        return texts

    cdef apply_origin(self, PlainExchange exchange, PyObject **told, int told_of, PyObject *waited, tuple host):
        """See `begin._apply_origin`. With a prefix, or ids, all is left to it."""
        cdef PlainRequests shared = self.shared
        cdef RememberedOrigin origin = None if shared.ids else shared.origin(told, told_of)
        if origin is None or not origin.simple:
            exchange.forwarding = {pair[0]: pair[1] for pair in [<object> told[i] for i in range(told_of)]}
            if waited is not NULL:
                exchange.forwarding[queues.FIELD] = (<tuple> waited)[1]
            return
        if waited is not NULL and shared.meter is not None:
            seconds = queue_time((<tuple> waited)[1], clock_gettime_of(REALTIME))
            if seconds is not None:
                shared.meter.queues.append(seconds)
        if origin.client is not None:
            exchange.client = origin.client
        exchange.scheme = origin.scheme
        if origin.hosted:
            scheme = self.link.scheme if origin.scheme is None else origin.scheme
            exchange.host = host if origin.host is None else origin.host
            if origin.port is not None:
                exchange.host = (b"host", with_port(exchange.host[1], origin.port, scheme))

    cdef make_scope(self, PlainExchange exchange, cstr target, cstr end, cstr query, bint percent, list headers):
        """See `begin_exchange`."""
        cdef Py_ssize_t length = (end if query is NULL else query) - target
        cdef dict scope = PyDict_Copy(self.template)
        cdef bytes raw = PyBytes_FromStringAndSize(<char *> target, length)
        cdef PlainRequests shared = self.shared
        exchange.target = raw if query is NULL else PyBytes_FromStringAndSize(<char *> target, end - target)
        if percent and memchr(target, 37, length) is not NULL:
            path = decode_path(raw)
        else:
            path = PyUnicode_DecodeASCII(<char *> target, length, NULL)
        if shared.root_path:
            path = shared.root_path + path
            raw = shared.raw_root_path + raw
        scope["asgi"] = PyDict_Copy(ASGI)
        scope["client"] = exchange.client
        if exchange.scheme is not None:
            scope["scheme"] = exchange.scheme
        if exchange.method is not GET:
            scope["method"] = exchange.method
        scope["path"] = path
        scope["raw_path"] = raw
        if query is not NULL:
            scope["query_string"] = PyBytes_FromStringAndSize(<char *> query + 1, end - query - 1)
        scope["headers"] = headers
        scope["state"] = PyDict_Copy(shared.state)
        scope["extensions"] = PyDict_Copy(self.extensions)
        exchange.scope = scope
