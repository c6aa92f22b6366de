# cython: language_level=3, binding=False, boundscheck=False, wraparound=False
"""Plain messages of WebSockets over HTTP/1, in Cython: a whole frame in a read, and the application's answer to it.

Runs in the worker's loop, if it was compiled (`hatch_build.py`). A `PlainSocket` is the handler of a connection. It takes
by itself a frame that comes whole and alone, is a whole message of text or bytes, and finds the application waiting; and
sends by itself a message that is neither large nor compressed. All else is for the ordinary `Socket` and `WebSocket`. It
must never accept a frame that they refuse, nor send other bytes than they would. tests/protocol run with both.

The application goes on at once, inside the read: its task waits all the while for a `Drive`, which runs the application's
coroutine from one `receive()` to the next. With all else that the application waits for, it is the task that steps.
"""

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Coroutine
from types import CoroutineType

from aserver.protocol.websocket import connection, session

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItemWithError
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.math cimport INFINITY
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    int PyContext_Enter(object) except -1
    int PyContext_Exit(object) except -1
    int PyIter_Send(object, object, PyObject **) except? -1
    object PyObject_Call(object, object, object)
    object PyUnicode_DecodeUTF8(const char *, Py_ssize_t, const char *)
    const char *PyUnicode_AsUTF8AndSize(object, Py_ssize_t *) except NULL
    void PyErr_SetObject(PyObject *, object)
    PyObject *PyExc_StopIteration
    ctypedef int (*sendfunc)(PyObject *, PyObject *, PyObject **) except? -1
    ctypedef struct PyAsyncMethods:
        sendfunc am_send
    ctypedef struct PyTypeObject:
        PyObject *(*tp_iternext)(PyObject *) except? NULL
        PyAsyncMethods *tp_as_async

ctypedef const unsigned char *cstr

cdef Py_ssize_t JOIN_FRAME_LIMIT = session.JOIN_FRAME_LIMIT
cdef object ACCEPTED = connection.ACCEPTED, CancelledError = asyncio.CancelledError
cdef object InvalidStateError = asyncio.InvalidStateError

DEF TEXT = 0x81  # a whole message in a frame, without extension
DEF BINARY = 0x82
DEF MASKED = 0x80

cdef enum:
    FRESH = 0  # nothing waits for it
    PENDING
    DONE
    CANCELLED
    SPENT


async def _await(awaitable):
    await awaitable


cdef inline void unmask(cstr source, unsigned char *target, Py_ssize_t size, cstr mask) noexcept:
    cdef uint64_t key, word
    cdef Py_ssize_t i = 0
    memcpy(&key, mask, 4)
    memcpy(<char *> &key + 4, mask, 4)
    while i + 8 <= size:
        memcpy(&word, source + i, 8)
        word ^= key
        memcpy(target + i, &word, 8)
        i += 8
    while i < size:
        target[i] = source[i] ^ mask[i & 3]
        i += 1


# ── what a task waits for ────────────────────────────────────────────────────────────────────────

cdef class Parked:
    """A future in all that a task asks of one; before something waits for it, it is none."""
    cdef object loop, callback, variables, reason
    cdef list more  # pairs of callback and context, after the first
    cdef int state
    cdef bint blocking

    @property
    def _asyncio_future_blocking(self):
        return None if self.state == FRESH else self.blocking

    @_asyncio_future_blocking.setter
    def _asyncio_future_blocking(self, bint blocking):
        self.blocking = blocking

    def get_loop(self):
        return self.loop

    def done(self):
        return self.state != PENDING

    def result(self):
        """None, because `receive()` returns the message."""
        if self.state == CANCELLED:
            raise CancelledError() if self.reason is None else CancelledError(self.reason)

    def add_done_callback(self, callback, *, context=None):
        if self.state != PENDING:
            self.loop.call_soon(callback, self, context=context)
        elif self.callback is None:
            self.callback, self.variables = callback, context
        else:
            self.more = [*(self.more or ()), (callback, context)]

    def cancel(self, msg=None):
        if self.state != PENDING:
            return False
        self.reason = msg
        self.finish(CANCELLED)
        return True

    cdef finish(self, int state):
        """Wake what waits, in the loop's next turn."""
        self.state = state
        if self.callback is not None:
            pairs = [(self.callback, self.variables), *(self.more or ())]
            self.callback = self.variables = self.more = None
            for callback, context in pairs:
                self.loop.call_soon(callback, self, context=context)


# ── the application's calls ──────────────────────────────────────────────────────────────────────

cdef object thrown(kind, value):
    """The exception of a call of `throw`."""
    error = kind if value is None else value
    return error() if isinstance(error, type) else error


cdef PyObject *next_of(int status, PyObject *result) except? NULL:
    """Do as `tp_iternext` does with what `PyIter_Send` gave."""
    if status == 1:
        return result
    if status == 0:
        outcome = <object> result
        Py_DECREF(outcome)
        if outcome is not None:
            PyErr_SetObject(PyExc_StopIteration, outcome)
    return NULL


cdef object given(PyObject *result):
    """Return the new reference that a `tp_iternext` gave; without one raise StopIteration, as `next` does."""
    if result is NULL:
        raise StopIteration
    outcome = <object> result
    Py_DECREF(outcome)
    return outcome


cdef class Receive(Parked):
    """The awaitable of `receive()`. Like a coroutine, it does nothing before it is awaited."""
    cdef PlainSocket plain
    cdef object message
    cdef object inner  # the iterator of the ordinary `receive()`, if that goes on
    cdef Drive drive  # whose coroutine waits for it, and no other task
    cdef bint begun

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return given(next_of_receive(<PyObject *> self))

    def send(self, value):
        if value is not None:
            raise TypeError("can't send non-None value to receive()")
        return self.__next__()

    def throw(self, kind, value=None, traceback=None):
        error = thrown(kind, value)
        if self.inner is not None:
            return self.inner.throw(error)
        self.leave()
        raise error

    def close(self):
        if self.inner is not None:
            self.inner.close()
        self.leave()

    cdef leave(self):
        """Wait no more, but lose no message."""
        cdef PlainSocket plain = self.plain
        self.begun = True
        if self.state == DONE:
            plain.messages.appendleft((self.message, 0))
        elif plain.parked is self:
            plain.parked = None
            if plain.socket.waiter is self:
                plain.socket.waiter = None
        self.state = SPENT
        self.drive = None

    def set_result(self, message):
        """Wake the application with a message, in the loop's next turn; called by `Socket`. Raises InvalidStateError."""
        cdef Drive drive = self.drive
        if self.state != PENDING:
            raise InvalidStateError
        self.plain.parked = self.drive = None
        self.message = message
        self.finish(DONE)
        if drive is not None and drive.state == PENDING:
            drive.finish(DONE)

    @property
    def cr_frame(self):
        """None: it has no frame of its own."""

    @property
    def cr_await(self):
        """The awaitable that it waits for, for tools that print stacks."""
        return self.inner


cdef int send_to_receive(PyObject *this, PyObject *value, PyObject **result) except? -1:
    """Take the next step of `receive()`, as PyIter_Send does."""
    cdef Receive call = <Receive> this
    cdef PlainSocket plain = call.plain
    if call.inner is not None:
        return PyIter_Send(call.inner, None, result)
    if call.state == FRESH:
        if call.begun:
            raise RuntimeError("cannot reuse already awaited coroutine")
        call.begun = True
        socket = plain.socket
        if socket.waiter is not None:  # another task waits already
            call.inner = socket.receive().__await__()
            return PyIter_Send(call.inner, None, result)
        if plain.messages or socket.phase is not ACCEPTED:
            call.message = socket.take()
        if call.message is None:
            call.state, call.blocking = PENDING, True
            plain.streak = False
            plain.parked = socket.waiter = call
            Py_INCREF(call)
            result[0] = this
            return 1
        call.state = DONE
    if call.state == PENDING:
        raise RuntimeError("await wasn't used with future")
    if call.state == CANCELLED:
        call.result()
    if call.state == SPENT:
        raise RuntimeError("cannot reuse already awaited coroutine")
    message, call.message = call.message, None
    call.state = SPENT
    Py_INCREF(message)
    result[0] = <PyObject *> message
    return 0


cdef PyObject *next_of_receive(PyObject *this) except? NULL:
    cdef PyObject *result = NULL
    cdef int status = send_to_receive(this, NULL, &result)
    return next_of(status, result)


@cython.freelist(64)
cdef class Send:
    """The awaitable of `send(message)`. Like a coroutine, it does nothing before it is awaited."""
    cdef PlainSocket plain
    cdef object message, inner
    cdef bint begun

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return given(next_of_send(<PyObject *> self))

    def send(self, value):
        if value is not None:
            raise TypeError("can't send non-None value to send()")
        return self.__next__()

    def throw(self, kind, value=None, traceback=None):
        self.begun = True
        error = thrown(kind, value)
        if self.inner is not None:
            return self.inner.throw(error)
        raise error

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


cdef int send_to_send(PyObject *this, PyObject *value, PyObject **result) except? -1:
    """Take the next step of `send()`, as PyIter_Send does."""
    cdef Send call = <Send> this
    cdef PlainSocket plain = call.plain
    cdef int status
    if call.inner is None:
        if call.begun:
            raise RuntimeError("cannot reuse already awaited coroutine")
        call.begun = True
        if plain.write_plain(call.message):
            if not plain.paused:
                Py_INCREF(None)
                result[0] = <PyObject *> None
                return 0
            call.inner = plain.socket.tunnel.until_writable().__await__()
        else:
            plain.socket.streak = plain.streak
            call.inner = plain.websocket.send(call.message).__await__()
            try:
                return PyIter_Send(call.inner, None, result)
            finally:
                plain.streak = plain.socket.streak
    return PyIter_Send(call.inner, None, result)


cdef PyObject *next_of_send(PyObject *this) except? NULL:
    cdef PyObject *result = NULL
    cdef int status = send_to_send(this, NULL, &result)
    return next_of(status, result)


# ── the application's coroutine ──────────────────────────────────────────────────────────────────

cdef class Drive(Parked):
    """Runs the application's coroutine for its task, which waits for this as long as that waits in `receive()`."""
    cdef PlainSocket plain
    cdef object coro, task, error
    cdef object handed  # for the task: it is to wait for this
    cdef bint handing, stepping, asked, ended

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return given(next_of_drive(<PyObject *> self))

    def send(self, value):
        return self.__next__()

    def throw(self, kind, value=None, traceback=None):
        error = thrown(kind, value)
        if self.handing:  # the application has cancelled itself, and waits
            self.handing = False
            handed, self.handed = self.handed, None
            cancel = None if type(handed) is Receive else getattr(handed, "cancel", None)
            if cancel is not None and isinstance(error, CancelledError) and cancel(*error.args):
                return handed
        if self.ended:
            return self.__next__()
        try:
            return self.passed(self.coro.throw(error))
        except BaseException:
            self.end()
            raise

    def close(self):
        if self.coro is not None:
            self.coro.close()
        self.end()

    @property
    def cr_frame(self):
        """None: it has no frame of its own."""

    @property
    def cr_await(self):
        """The application's coroutine, for tools that print stacks."""
        return self.coro

    def cancel(self, msg=None):
        """As a future does; while the application runs, its task notes the cancellation."""
        if self.stepping:
            self.asked = True
            return False
        return Parked.cancel(self, msg)

    cdef end(self):
        self.ended = True
        self.coro = self.plain = self.task = None

    cdef bint rests(self, result):
        """Whether the coroutine waits in `receive()`."""
        if type(result) is Receive and (<Receive> result).plain is self.plain and (<Receive> result).callback is None:
            (<Receive> result).drive = self
            return True
        return False

    cdef passed(self, result):
        """Return what the task is to wait for."""
        if not self.rests(result):
            return result
        self.state, self.blocking = PENDING, True
        return self

    cdef step(self, Receive call, message):
        """Go on with a message, for which the coroutine waits. What else it then waits for is for the task."""
        cdef PyObject *result = NULL
        cdef int status
        cdef PlainSocket plain = self.plain
        plain.parked = plain.socket.waiter = call.drive = None
        call.message, call.state = message, DONE
        if self.task is None:
            self.task = plain.websocket.task
        try:
            _enter_task(self.loop, self.task)
        except RuntimeError:  # within another task
            self.finish(DONE)
            return
        self.stepping = True
        PyContext_Enter(self.variables)
        try:
            status = PyIter_Send(self.coro, None, &result)
        except BaseException as error:
            self.error, status = error, -1
        PyContext_Exit(self.variables)
        self.stepping = False
        _leave_task(self.loop, self.task)
        outcome = None
        if status >= 0:
            outcome = <object> result
            Py_DECREF(outcome)
        if status == 1:
            if self.rests(outcome) and not self.asked:
                return
            self.handed, self.handing = outcome, True
        else:
            self.end()
        self.asked = False
        callback, context = self.callback, self.variables
        self.callback = self.variables = None
        self.state = DONE
        PyContext_Enter(context)
        try:
            callback(self)
        finally:
            PyContext_Exit(context)


cdef int send_to_drive(PyObject *this, PyObject *value, PyObject **result) except? -1:
    """Take the next step, as PyIter_Send does."""
    cdef Drive drive = <Drive> this
    cdef int status
    if drive.ended:
        error, drive.error = drive.error, None
        if error is not None:
            raise error
        outcome, status = None, 0
    elif drive.handing:
        outcome, drive.handed, drive.handing = drive.handed, None, False
        outcome, status = drive.passed(outcome), 1
    else:
        try:
            status = PyIter_Send(drive.coro, None, result)
        except BaseException:
            drive.end()
            raise
        outcome = <object> result[0]
        Py_DECREF(outcome)
        if status == 1:
            outcome = drive.passed(outcome)
        else:
            drive.end()
            outcome = None
    Py_INCREF(outcome)
    result[0] = <PyObject *> outcome
    return status


cdef PyObject *next_of_drive(PyObject *this) except? NULL:
    cdef PyObject *result = NULL
    cdef int status = send_to_drive(this, NULL, &result)
    return next_of(status, result)


(<PyTypeObject *> Receive).tp_iternext = next_of_receive
(<PyTypeObject *> Receive).tp_as_async.am_send = send_to_receive
(<PyTypeObject *> Send).tp_iternext = next_of_send
(<PyTypeObject *> Send).tp_as_async.am_send = send_to_send
(<PyTypeObject *> Drive).tp_iternext = next_of_drive
(<PyTypeObject *> Drive).tp_as_async.am_send = send_to_drive
for _each in (Receive, Send, Drive):
    Coroutine.register(_each)


# ── the client's side ────────────────────────────────────────────────────────────────────────────

cdef class PlainSockets:
    """Makes the handlers of WebSockets. Call `renew` after each `Context.tick`."""
    cdef object context, loop
    cdef Py_ssize_t received, limit

    def __init__(self, context):
        self.context, self.loop = context, context.loop
        self.limit = min(context.config.ws_max_size, 65535)

    def begin(self, websocket):
        """Make the handler of a WebSocket, which also calls its application."""
        cdef PlainSocket plain = PlainSocket.__new__(PlainSocket)
        plain.shared, plain.websocket, plain.socket = self, websocket, websocket.socket
        plain.messages = plain.socket.messages
        plain.writer = plain.socket.writer
        plain.limit = self.limit
        websocket.call = plain.call
        return plain

    def renew(self):
        """Count the bytes that were received."""
        self.context.meter.received += self.received
        self.received = 0


cdef class PlainSocket:
    """The handler of a connection with a WebSocket."""
    cdef PlainSockets shared
    cdef object websocket, messages, writer, write
    cdef readonly object socket
    cdef Receive parked  # the `receive()` that waits for a message
    cdef Py_ssize_t sent, limit
    cdef bint at_rest  # see `rests`
    cdef bint heard  # bytes have come since the last `expire`
    cdef bint paused, streak, answering, compressing

    def call(self, app):
        """Return the awaitable with which a task runs the application."""
        cdef Drive drive = Drive.__new__(Drive)
        self.websocket.call = None
        coro = app(self.websocket.scope, self.receive, self.send)
        drive.coro = coro if type(coro) is CoroutineType else _await(coro)
        drive.plain, drive.loop = self, self.shared.loop
        return drive

    def receive(self):
        """ASGI `receive()`."""
        cdef Receive call = Receive.__new__(Receive)
        call.plain, call.loop = self, self.shared.loop
        return call

    def send(self, message):
        """ASGI `send()`."""
        cdef Send call = Send.__new__(Send)
        call.plain, call.message = self, message
        return call

    cdef bint write_plain(self, message) except -1:
        """Send a message; return False if it is none of the plain ones."""
        cdef PyObject *kind
        cdef PyObject *data
        cdef const char *source
        cdef char *p
        cdef Py_ssize_t size, head
        cdef unsigned char first = BINARY
        if type(message) is not dict or self.socket.phase is not ACCEPTED:
            return False
        if not self.answering:
            self.answering, self.compressing = True, self.websocket._deflater is not None
            self.write = self.writer.transport.write
        kind = PyDict_GetItemWithError(message, "type")
        if self.compressing or kind is NULL or <object> kind != "websocket.send":
            return False
        data = PyDict_GetItemWithError(message, "bytes")
        if data is NULL or data is <PyObject *> None:
            data = PyDict_GetItemWithError(message, "text")
            if data is NULL or type(<object> data) is not str:
                return False
            first = TEXT
            try:
                source = PyUnicode_AsUTF8AndSize(<object> data, &size)
            except UnicodeEncodeError:
                return False
        elif type(<object> data) is bytes:
            source, size = PyBytes_AS_STRING(<object> data), PyBytes_GET_SIZE(<object> data)
        else:
            return False
        if size >= JOIN_FRAME_LIMIT:
            return False
        head = 2 if size < 126 else 4
        frame = PyBytes_FromStringAndSize(NULL, head + size)
        p = PyBytes_AS_STRING(frame)
        p[0] = <char> first
        if head == 2:
            p[1] = <char> size
        else:
            p[1], p[2], p[3] = 126, <char> (size >> 8), <char> (size & 255)
        memcpy(p + head, source, size)
        self.sent += size
        # See `WebSocket.send`.
        held = self.writer.held
        if held is None and self.messages:
            self.writer.hold(pipelined=False)
            held = True
        if self.streak or held is not None:
            self.writer.write_soon(frame)
        else:
            self.streak = True
            self.write(frame)
        return True

    # As the handler of a connection

    def data_received(self, data):
        """Give a plain frame to the application; give all else to the ordinary handler."""
        if type(data) is not bytes or not self.read(<bytes> data):
            self.at_rest = False
            self.socket.data_received(data)

    cdef bint read(self, bytes data) except -1:
        """Read a plain frame; return False if it is none, or the application does not wait for it here."""
        cdef Receive call = self.parked
        cdef Drive drive
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data), length, start
        cdef cstr p = <cstr> PyBytes_AS_STRING(data)
        if call is not None and size >= 6 and p[1] >= MASKED and self.rests():
            length, start = p[1] - MASKED, 6
            if length == 126:
                length, start = p[2] << 8 | p[3], 8
            if start + length == size and p[1] != 255 and length <= self.limit and (p[0] == TEXT or p[0] == BINARY):
                drive = call.drive
                if drive is not None and drive.state == PENDING and drive.callback is not None:
                    payload = PyBytes_FromStringAndSize(NULL, length)
                    unmask(p + start, <unsigned char *> PyBytes_AS_STRING(payload), length, p + start - 4)
                    if p[0] == BINARY:
                        message = {"type": "websocket.receive", "bytes": payload}
                    else:
                        try:
                            text = PyUnicode_DecodeUTF8(PyBytes_AS_STRING(payload), length, NULL)
                        except UnicodeDecodeError:
                            return False
                        message = {"type": "websocket.receive", "text": text}
                    self.shared.received += size
                    self.heard = True
                    drive.step(call, message)
                    return True
        return False

    cdef inline bint rests(self) except -1:
        """Whether the reader is between two frames, and has no bytes; true until it gets some."""
        if not self.at_rest:
            reader = self.socket.reader
            self.at_rest = reader is not None and reader.at_rest
        return self.at_rest

    def eof_received(self):
        """See `Handler`."""
        return False

    def writable(self):
        """See `Handler`."""
        self.socket.writable()

    def expire(self):
        """See `Handler`."""
        if self.heard:
            self.heard = False
            self.socket._silent_since = INFINITY
        self.socket.expire()

    def postpone(self, seconds):
        """See `Handler`."""
        self.socket.postpone(seconds)

    def cut(self):
        """See `Handler`."""
        self.socket.cut()

    def lost(self):
        """See `Handler`."""
        self.shared.renew()
        self.websocket.sent += self.sent
        self.websocket.call = None
        self.socket.lost()

    @property
    def idle(self):
        """See `Handler`."""
        return False

    @property
    def portable(self):
        """See `Handler`."""
        return False

    @property
    def write_paused(self):
        """Whether the client reads too slowly."""
        return self.paused

    @write_paused.setter
    def write_paused(self, bint paused):
        self.paused = self.socket.write_paused = paused
