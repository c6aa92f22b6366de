# cython: language_level=3, binding=False, boundscheck=False, wraparound=False
"""Transports of our own for plain TCP and unix sockets on Linux: read, written and accepted without the loop's queues.

Runs in the worker's loop, where it was compiled (`hatch_build.py`). A `SocketPoll` is an epoll instance that the loop
watches; a `SocketTransport` is an `asyncio.Transport` in all but name, with asyncio's rules. It must never call the protocol of a
connection that was lost, nor change the epoll instance from a forked child, and reads each connection once a turn at most.

A protocol may do anything to its transport from within a call: so each call is the last step, or the state is looked
at anew after it. `table` holds a transport until its descriptor is closed. An event carries descriptor and serial, since the
number of a closed descriptor is given to the next client, perhaps in the same turn.
"""

import os
import socket
from asyncio.trsock import TransportSocket

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_XDECREF
from libc.errno cimport (EAGAIN, ECONNABORTED, EHOSTDOWN, EHOSTUNREACH, EINTR, ENETDOWN, ENETUNREACH, ENOPROTOOPT,
                         EOPNOTSUPP, EPROTO, EPERM, errno)
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset
from posix.unistd cimport close as close_descriptor, getpid

cdef extern from "Python.h":
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *, Py_ssize_t) except NULL
    int _PyBytes_Resize(PyObject **, Py_ssize_t) except -1

cdef extern from "<sys/epoll.h>":
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL
    uint32_t EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP, EPOLLET
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event *)
    int epoll_wait(int, epoll_event *, int, int)

cdef extern from "<sys/uio.h>":
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>":
    ctypedef unsigned int socklen_t
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        unsigned short ss_family
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    int AF_INET, AF_INET6, AF_UNIX, MSG_MORE, MSG_NOSIGNAL, SHUT_WR, SOCK_CLOEXEC, SOCK_NONBLOCK
    int accept4(int, sockaddr *, socklen_t *, int)
    int getsockname(int, sockaddr *, socklen_t *)
    ssize_t recv(int, void *, size_t, int)
    ssize_t send(int, const void *, size_t, int)
    ssize_t sendmsg(int, const msghdr *, int)
    int setsockopt(int, int, int, const void *, socklen_t)
    int shutdown(int, int)

cdef extern from "<netinet/in.h>":
    struct in_addr:
        pass
    struct sockaddr_in:
        unsigned short sin_port
        in_addr sin_addr
    int IPPROTO_TCP
    unsigned short ntohs(unsigned short)

cdef extern from "<netinet/tcp.h>":
    int TCP_NODELAY

cdef extern from "<arpa/inet.h>":
    const char *inet_ntop(int, const void *, char *, socklen_t)

DEF READ = 256000  # bytes in a read, as uvloop's
DEF LARGE = 32768  # bytes of a read after which the next has an object of its own
DEF EVENTS = 32  # in a turn; the others are the next turn's, so that no answer waits for hundreds of tasks
DEF PIECES = 64  # in a write
DEF HIGH = 65536  # bytes that may wait until the protocol is paused, as asyncio's
DEF ACCEPTED = 16  # clients in a turn, so that one worker of several does not take all

cdef uint32_t FORKS = 0


def forked():
    """Count the forks of this process: a child has descriptors of its own for the same sockets."""
    global FORKS
    FORKS += 1


os.register_at_fork(after_in_parent=forked)


cdef object error_of(int number):
    return OSError(number, os.strerror(number))


cdef object address_of(sockaddr_storage *address, socklen_t size):
    """An address as Python's sockets have it; None if Python is to be asked."""
    cdef char text[16]
    cdef sockaddr_in *inet = <sockaddr_in *> address
    if address.ss_family == AF_INET:
        inet_ntop(AF_INET, &inet.sin_addr, text, 16)
        return (<bytes> text).decode("ascii"), <int> ntohs(inet.sin_port)
    if address.ss_family == AF_UNIX and size == sizeof(address.ss_family):  # of a client that has not bound its socket
        return ""
    return None


cdef bytes bytes_of(object data):
    """The data to be written, as the caller cannot change it later."""
    if isinstance(data, bytes):
        return <bytes> data
    if not isinstance(data, (bytearray, memoryview)):
        raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
    return bytes(data)


cdef bytes beginning(PyObject *whole, Py_ssize_t size):
    """Return the first bytes of an object that nothing else refers to; the caller's reference is taken."""
    cdef Py_ssize_t room = PyBytes_GET_SIZE(<object> whole)
    cdef bytes data
    if size < room // 2:  # nothing of the large block is to stay
        data = PyBytes_FromStringAndSize(PyBytes_AS_STRING(<object> whole), size)
    else:
        if size < room:
            _PyBytes_Resize(&whole, size)
        data = <bytes> whole
    Py_DECREF(<object> whole)
    return data


# ── a worker's sockets ───────────────────────────────────────────────────────────────────────────

cdef class SocketPoll:
    """The epoll instance of a loop, and the transports whose sockets it watches. To be closed after the last has ended."""
    cdef readonly object loop
    cdef object call_soon
    cdef list table  # transports by descriptor, None where there is none
    cdef list fresh  # accepted, and not watched yet
    cdef list ending
    cdef char *buffer
    cdef int epoll, process
    cdef uint32_t serials, forks

    def __cinit__(self):
        self.epoll = -1

    def __init__(self, loop):
        self.loop, self.call_soon = loop, loop.call_soon
        self.table, self.fresh, self.ending = [], [], []
        self.buffer = <char *> malloc(READ)
        if self.buffer is NULL:
            raise MemoryError
        self.process, self.forks = getpid(), FORKS
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise error_of(errno)
        loop.add_reader(self.epoll, self.turn)

    def __dealloc__(self):
        free(self.buffer)
        if self.epoll >= 0:
            close_descriptor(self.epoll)

    def close(self):
        """Watch nothing any more."""
        if self.epoll >= 0:
            self.loop.remove_reader(self.epoll)
            close_descriptor(self.epoll)
            self.epoll = -1

    def accept(self, server, int listener, factory):
        """Make connections of the clients that wait, until there are many or `server.held`.

        Their requests are nearly always there: so each is read at once, and watched only if it outlives its first task.
        Raises OSError for what will last, as a lack of descriptors; the clients before it are served.
        """
        cdef sockaddr_storage address
        cdef socklen_t size
        cdef int fd, i
        cdef SocketTransport transport
        cdef list taken = []
        try:
            for i in range(ACCEPTED):
                size = sizeof(address)
                fd = accept4(listener, <sockaddr *> &address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
                if fd >= 0:
                    self.begin(fd, factory, address_of(&address, size), address.ss_family, taken)
                    if server.held:
                        break
                elif errno == EAGAIN:
                    break
                elif errno not in (EINTR, ECONNABORTED, EPROTO, EPERM, ENETDOWN, ENOPROTOOPT, EHOSTDOWN, EHOSTUNREACH,
                                   EOPNOTSUPP, ENETUNREACH):  # those are of a client that is gone: accept(2)
                    raise error_of(errno)
            for transport in taken:
                if transport.reads():
                    transport.read()
        finally:
            self.watch_soon(taken)

    def adopt(self, sock, factory):
        """Make a connection of a connected socket, which does not block, and take it from its object."""
        cdef SocketTransport transport
        cdef list taken = []
        family = sock.family
        try:
            self.begin(sock.detach(), factory, None, family, taken)
            for transport in taken:
                if transport.reads():
                    transport.read()
        finally:
            self.watch_soon(taken)

    cdef begin(self, int fd, factory, peername, int family, list taken):
        """Make a transport and its protocol, and put it among those that are taken."""
        cdef SocketTransport transport = SocketTransport.__new__(SocketTransport)
        self.serials += 1
        transport.poll, transport.fd, transport.serial = self, fd, self.serials
        transport.peername = peername
        transport.inet = transport.delayed = family == AF_INET or family == AF_INET6
        transport.high, transport.low, transport.fresh = HIGH, HIGH // 4, True
        while PyList_GET_SIZE(self.table) <= fd:
            self.table.append(None)
        self.table[fd] = transport
        try:
            transport.set_protocol(factory())
            taken.append(transport)
            transport.protocol.connection_made(transport)
        except (SystemExit, KeyboardInterrupt):
            transport.abort()
            raise
        except BaseException as error:
            transport.crash("a connection could not be made", error)

    cdef watch_soon(self, list taken):
        """Watch transports once their first tasks have run, unless they have ended by then."""
        if taken:
            if not self.fresh:
                self.call_soon(self.watch)
            self.fresh += taken

    def watch(self):
        """Watch those that go on."""
        cdef SocketTransport transport
        fresh, self.fresh = self.fresh, []
        for transport in fresh:
            transport.fresh = False
            transport.interest()

    def turn(self):
        """Serve the sockets that are ready."""
        cdef epoll_event events[EVENTS]
        cdef int i, count = epoll_wait(self.epoll, events, EVENTS, 0)
        cdef uint32_t fd
        cdef SocketTransport transport
        for i in range(count):
            fd = <uint32_t> events[i].data.u64
            found = self.table[fd]  # which never gets shorter
            if found is not None:
                transport = <SocketTransport> found
                if transport.serial == <uint32_t> (events[i].data.u64 >> 32):
                    transport.ready(events[i].events)

    def finish(self):
        """Tell protocols that their connections are lost, then close the sockets."""
        cdef SocketTransport transport
        ending, self.ending = self.ending[::-1], []
        try:
            while ending:
                transport = ending.pop()
                transport.finish()
        finally:
            if ending:  # SystemExit
                self.ending += ending
                self.call_soon(self.finish)


# ── a connection ─────────────────────────────────────────────────────────────────────────────────

@cython.freelist(64)
cdef class SocketTransport:
    """A connected socket. `mask` has the events that the epoll instance waits for: 0 if it does not know the socket."""
    cdef SocketPoll poll
    cdef object protocol, receive, peername, sock, error
    cdef list pending  # pieces not written yet
    cdef Py_ssize_t offset, size  # bytes of the first that are written; bytes that are not
    cdef Py_ssize_t high, low
    cdef uint32_t serial, mask
    cdef int fd
    cdef int room  # for the next read; 0 if the last was not large
    cdef bint fresh, inet, delayed, corked, reading_paused, writing_paused, at_eof, eof_written, closing, ended

    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        if self.fd >= 0:
            close_descriptor(self.fd)

    def __repr__(self):
        return f"<SocketTransport fd={self.fd} unsent={self.size}{' closing' if self.closing else ''}>"

    # Events

    cdef inline bint reads(self) noexcept:
        return not (self.reading_paused or self.closing or self.at_eof)

    cdef interest(self, bint again=False):
        """Have the epoll instance wait for the right events, of which it tells once when they come, or are there by now.

        With `again` also if it waits for them already, because those that it has told of were not used up.
        """
        cdef uint32_t wanted = 0
        cdef int operation, on = 1
        cdef epoll_event event
        cdef SocketPoll poll = self.poll
        if not self.ended:
            if self.reads():
                wanted = EPOLLIN | EPOLLRDHUP
            if self.size:
                wanted |= EPOLLOUT
        if wanted == self.mask and not (again and wanted) or poll.epoll < 0 or getpid() != poll.process:
            return
        # Not even for no event may it stay there: a hang-up is always told.
        operation = EPOLL_CTL_MOD if wanted else EPOLL_CTL_DEL
        if self.mask == 0:
            operation = EPOLL_CTL_ADD
            if self.delayed:
                self.delayed = False
                setsockopt(self.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
        event.events = wanted | EPOLLET
        event.data.u64 = (<uint64_t> self.serial << 32) | <uint32_t> self.fd
        if epoll_ctl(poll.epoll, operation, self.fd, &event) == 0:
            self.mask = wanted
        elif not self.ended:
            self.end(error_of(errno))

    cdef ready(self, uint32_t events):
        cdef bint reading = self.reads(), more = False
        if reading and events & (EPOLLIN | EPOLLERR | EPOLLHUP):
            more = self.read() or events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP)
        if self.size and events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
            self.flush()
        if more or not reading:  # only now, and not at the pause: most are over before more comes
            self.interest(more)

    cdef bint read(self) except -1:
        """Read once; return whether there may be more. A read that was not filled has taken all (epoll(7)), but for the end.

        After a large read the next goes straight into an object, because a copy of 64 KB costs as much as a short request.
        """
        cdef int room = self.room, number
        cdef bint full
        cdef ssize_t count
        cdef PyObject *whole = NULL
        if room:
            whole = new_bytes(NULL, room)
            count = recv(self.fd, PyBytes_AS_STRING(<object> whole), room, 0)
        else:
            count = recv(self.fd, self.poll.buffer, READ, 0)
        if count < 0:
            number = errno
            Py_XDECREF(whole)
            if number != EAGAIN and number != EINTR:
                self.end(error_of(number))
            return number == EINTR
        full = count == (room if room else READ)
        if count < LARGE:
            self.room = 0
        else:
            self.room = READ if count == room else min(READ, count + count // 8)
        try:
            if whole is not NULL:
                data = beginning(whole, count)
            else:
                data = PyBytes_FromStringAndSize(self.poll.buffer, count)
            if count:
                self.receive(data)
                return full
            self.at_eof = True
            if not self.protocol.eof_received():
                self.close()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.crash("a protocol failed", error)
        return False

    def pause_reading(self):
        """Read no more; the socket is let go of when it has something."""
        self.reading_paused = True

    def resume_reading(self):
        """Read again."""
        if self.reading_paused:
            self.reading_paused = False
            if not (self.fresh or self.ended):
                self.interest()

    def is_reading(self):
        """Whether bytes that come are read."""
        return not (self.reading_paused or self.closing)

    # Writing

    def write(self, data):
        """Write now; the rest, if the socket is full, when it has room."""
        self.put(bytes_of(data), 0)

    def write_last(self, data):
        """Write the last bytes before a `close` that follows at once: over TCP they leave in one packet with the end.

        The kernel keeps an unfilled packet for more until `end` calls shutdown(2). A close(2) would do that as well, but
        lose the packet if the client has sent something since the last read.
        """
        self.corked = self.inet
        self.put(bytes_of(data), MSG_MORE if self.inet else 0)

    cdef put(self, bytes piece, int flag):
        cdef Py_ssize_t size = PyBytes_GET_SIZE(piece)
        cdef ssize_t sent = 0
        if self.eof_written:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self.ended or size == 0:
            return
        if self.size == 0:
            sent = send(self.fd, PyBytes_AS_STRING(piece), size, MSG_NOSIGNAL | flag)
            if sent == size:
                return
            if sent < 0:
                if errno != EAGAIN and errno != EINTR:
                    self.end(error_of(errno))
                    return
                sent = 0
            self.pending, self.offset = [], sent
        self.pending.append(piece)
        self.size += size - sent
        self.interest()
        self.pause_if_full()

    def writelines(self, pieces):
        """Write pieces, in one call where that is possible."""
        cdef list whole = [bytes_of(piece) for piece in pieces]
        if self.eof_written:
            raise RuntimeError("Cannot call writelines() after write_eof()")
        if self.ended:
            return
        whole = [piece for piece in whole if piece]
        if not whole:
            return
        if self.size == 0:
            self.pending, self.offset = [], 0
        self.pending += whole
        for piece in whole:
            self.size += PyBytes_GET_SIZE(<bytes> piece)
        if PyList_GET_SIZE(self.pending) != PyList_GET_SIZE(whole) or self.send_pending():
            self.interest()
            self.pause_if_full()

    cdef bint send_pending(self) except -1:
        """Write pending pieces once; return whether some are left, or False if the connection is lost."""
        cdef iovec vectors[PIECES]
        cdef msghdr message
        cdef list pending = self.pending
        cdef Py_ssize_t i, left, count = min(PyList_GET_SIZE(pending), PIECES)
        cdef ssize_t sent
        for i in range(count):
            vectors[i].iov_base = PyBytes_AS_STRING(<bytes> pending[i])
            vectors[i].iov_len = PyBytes_GET_SIZE(<bytes> pending[i])
        vectors[0].iov_base = <char *> vectors[0].iov_base + self.offset
        vectors[0].iov_len -= self.offset
        memset(&message, 0, sizeof(message))
        message.msg_iov, message.msg_iovlen = vectors, count
        sent = sendmsg(self.fd, &message, MSG_NOSIGNAL)
        if sent < 0:
            if errno == EAGAIN or errno == EINTR:
                return True
            self.end(error_of(errno))
            return False
        self.size -= sent
        if self.size == 0:
            self.pending = None
            return False
        left = sent + self.offset
        i = 0
        while left >= PyBytes_GET_SIZE(<bytes> pending[i]):
            left -= PyBytes_GET_SIZE(<bytes> pending[i])
            i += 1
        del pending[:i]
        self.offset = left
        return True

    cdef flush(self):
        """Write what is pending, for the socket has room."""
        self.send_pending()
        if self.ended:
            return
        if self.writing_paused and self.size <= self.low:
            self.writing_paused = False
            self.tell("resume_writing")  # which may write
        if self.ended:
            return
        if self.size == 0:
            if self.closing:
                self.end(None)
                return
            if self.eof_written and shutdown(self.fd, SHUT_WR) < 0:
                self.end(error_of(errno))
                return
        self.interest(True)

    cdef pause_if_full(self):
        if self.size > self.high and not self.writing_paused:
            self.writing_paused = True
            self.tell("pause_writing")

    cdef tell(self, str name):
        """Call a method of flow control; its mistake does not end the connection."""
        try:
            getattr(self.protocol, name)()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.report(f"protocol.{name}() failed", error)

    def get_write_buffer_size(self):
        """How many bytes wait."""
        return self.size

    def get_write_buffer_limits(self):
        """The limits of flow control: low, high."""
        return self.low, self.high

    def set_write_buffer_limits(self, high=None, low=None):
        """Pause the protocol when more than `high` bytes wait, until `low` are left."""
        if high is None:
            high = HIGH if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self.high, self.low = high, low
        self.pause_if_full()

    def can_write_eof(self):
        """A socket can be closed by half."""
        return True

    def write_eof(self):
        """Close by half, after what is pending. Raises OSError if the client is gone."""
        if self.closing or self.eof_written:
            return
        self.eof_written = True
        if self.size == 0 and shutdown(self.fd, SHUT_WR) < 0:
            raise error_of(errno)

    # The end

    def close(self):
        """Close when all that is pending is written."""
        if not self.closing:
            self.closing = True
            if self.size == 0:
                self.end(None)

    def abort(self):
        """Close now."""
        self.end(None)

    def is_closing(self):
        """Whether it is closed, or will be."""
        return self.closing

    cdef end(self, error):
        """Have the protocol hear in the loop's next turn that the connection is lost."""
        cdef SocketPoll poll = self.poll
        if self.ended:
            return
        self.closing = self.ended = True
        self.pending, self.size, self.error = None, 0, error
        if self.corked:
            shutdown(self.fd, SHUT_WR)
        if self.sock is not None or poll.forks != FORKS:  # else close(2) takes it from the epoll instance
            self.interest()
        if not poll.ending:
            poll.call_soon(poll.finish)
        poll.ending.append(self)

    cdef finish(self):
        """Tell the protocol, and let go of all; called once."""
        protocol, error, fd = self.protocol, self.error, self.fd
        try:
            if protocol is not None:
                protocol.connection_lost(error)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as failure:
            self.report("protocol.connection_lost() failed", failure)
        finally:
            self.protocol = self.receive = self.error = None
            self.poll.table[fd] = None
            self.fd = -1
            if self.sock is not None:
                self.sock.detach()
            close_descriptor(fd)

    cdef crash(self, str message, error):
        """End after a mistake of the protocol, which is logged if it is none of the network."""
        if not isinstance(error, OSError):
            self.report(message, error)
        self.end(error)

    cdef report(self, str message, error):
        context = {"message": message, "exception": error, "transport": self, "protocol": self.protocol}
        self.poll.loop.call_exception_handler(context)

    # What else a transport has

    def get_protocol(self):
        """The protocol; None after the end."""
        return self.protocol

    def set_protocol(self, protocol):
        """Call another protocol from now on; `data_received` is looked up here."""
        if self.fd >= 0:
            self.protocol, self.receive = protocol, protocol.data_received

    def get_extra_info(self, name, default=None):
        """As asyncio's."""
        cdef sockaddr_storage address
        cdef socklen_t size = sizeof(address)
        if self.fd < 0 or name not in ("peername", "sockname", "socket"):
            return default
        if name == "peername" and self.peername is not None:
            return self.peername
        if name == "sockname" and getsockname(self.fd, <sockaddr *> &address, &size) == 0:
            found = address_of(&address, size)
            if found is not None:
                return found
        if self.sock is None:
            self.sock = socket.socket(fileno=self.fd)
            self.sock.setblocking(False)
        try:
            if name == "peername":
                self.peername = self.sock.getpeername()
                return self.peername
            return self.sock.getsockname() if name == "sockname" else TransportSocket(self.sock)
        except OSError:
            return default
