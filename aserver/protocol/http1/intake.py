"""The receiving half of an HTTP/1 connection: bytes to the parser, in the quick way if that will do.

Runs in the worker's loop. There are two ways in. What looks like one whole and plain request is given to llhttp at
once, and the head is believed if `on_headers_complete` finds nothing odd in the raw bytes. All else (heads and bodies
in pieces, pipelining, other methods, anything that llhttp stumbles over) goes the careful way, again from the start:
`careful`. What a request is, and what happens to it, is for `http1`. It must never call the application: the parser's
callbacks only collect.
"""

import httptools

from aserver.errors import ClientError
from aserver.protocol.application.exchange import Exchange
from aserver.protocol.http1.careful import END_OF_HEAD, SLICE, CarefulIntake, DoubtError, unmade
from aserver.protocol.http1.framing import has_more_lines
from aserver.protocol.semantics.wire import FORWARDING_NAMES, REQUEST_NAMES, SPECIAL_REQUEST_NAMES


class Intake(CarefulIntake):
    """A connection that reads requests; `HttpConnection` is the one kind of it."""

    __slots__ = ()

    # ── bytes in ─────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        """Parse, then start what can be started."""
        known = self._known
        if (
            known is not None
            and data.endswith(known[0])
            and self.current is None
            and self.feed is self._unstopped
            and (again := self._read_again(data, known)) is not None
        ):
            if not self.write_paused:
                self.launch(again)
            return
        if self.feed is unmade:
            self._renew_parser()
            self.feed = self._unstopped
        self._data = data
        if len(data) > SLICE // 2 and self._hopeful() and self._costly(data):
            self.feed = self._feed_carefully
        error = None
        try:
            self.feed(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as stop:
            error = stop
        if error is not None:  # not above: what is raised while another error is handled, forgets its own cause
            self._start_over(data, error.__context__)
        if self._learnt is not None:
            self._known = self.context.known = self._learnt
            self._learnt = None
        current = self.current
        if current is not None and not current.launched and not self.write_paused:
            self.launch(current)
        if self._data or self.receiving is not None:
            self._unfinished()

    def _hopeful(self) -> bool:
        """Tell whether pieces go to the parser at once."""
        return self.feed is self._unstopped

    def _costly(self, data: bytes) -> bool:
        """Tell whether the parser, which cannot be stopped, would take long for it."""
        if len(data) > SLICE:
            return True
        # Behind a GET is another head, if anything; behind others a body, and if it is too long for that, they stop it.
        heads = data if data.startswith(b"GET /") else data[: data.find(END_OF_HEAD)]
        return has_more_lines(heads, self.context.limit_request_fields)

    def _start_over(self, data: bytes, cause: BaseException | None) -> None:
        """Read a piece again that the parser did not take in one go, from the first byte that is not served yet."""
        if not isinstance(cause, ClientError | DoubtError | None):
            raise cause  # a mistake of ours
        start = 0
        if not self._data:  # a head was believed, because the piece ends like one: there is another behind it
            self._pipelining = True
            start = data.index(END_OF_HEAD) + len(END_OF_HEAD)
        self._forget_head()
        self._renew_parser()
        self.feed = self._feed_carefully
        self._feed_carefully(data[start:])

    def _unfinished(self) -> None:
        """Go on carefully with what comes in pieces; not called when requests come whole."""
        if not self._hopeful():
            self._data = b""
        elif self._data:  # a head without its end
            self._start_over(self._data, None)
        else:
            self.feed = self._feed_carefully

    # ── callbacks of the parser: the head and, after the body, the trailers ──────────────────────

    def on_url(self, url: bytes) -> None:
        """Take the request target, or a piece of it: then it will be read again, carefully.

        Raises DoubtError through the parser if a head before it, in the same piece, was believed to be the last.
        """
        if self._final or (not self._data and self._request_line is None):
            raise DoubtError
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head, or of the trailers (which `on_message_complete` drops)."""
        known = REQUEST_NAMES.get(name)
        value = value.rstrip()  # llhttp leaves trailing whitespace (RFC 9110 section 5.5)
        if known is None:
            known = name.lower()
            if known in SPECIAL_REQUEST_NAMES:
                special = self.special
                if known in special:
                    if known in {b"host", b"content-length"}:
                        raise ClientError(400, f"repeated {known.decode()} field")
                    special[known] = self._joined(special[known], known, value)
                else:
                    special[known] = value
            elif known in FORWARDING_NAMES:
                told = self.told
                told[known] = self._joined(told[known], known, value) if known in told else value
        self.headers.append((known, value))

    def _joined(self, before: bytes, name: bytes, value: bytes) -> bytes:
        """Return a list field that comes in several lines as one value, which is held to the limit of one field.

        RFC 9110 section 5.3: it means the same. Without the limit these lists, looked through at once, could be
        a hundred times as long, and would be copied a hundred times.
        """
        limit = self.context.limit_request_field_size
        if len(name) + len(": ") + len(before) + len(", ") + len(value) > limit:
            raise ClientError(431, f"field {name.decode()} in several lines above {limit} bytes")
        return before + b", " + value

    # ── what `HttpConnection` does with it ───────────────────────────────────────────────────────

    def launch(self, exchange: Exchange) -> None:
        """Start the application for a request whose turn has come."""
        raise NotImplementedError


def drop(data: bytes) -> None:
    """Feed of a connection that is gone; no bound method, so that no cycle keeps it."""
