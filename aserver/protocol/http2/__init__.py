"""HTTP/2 (RFC 9113): bytes in to requests, responses to bytes out.

The pure half, which knows no transport, loop or clock, and from which the connection (the shell) is built:

* `errors`: `ConnectionFaultError` and `StreamFaultError`, each with its `code`; the codes.
* `frames`: types, flags, settings, length checks; frames out. `static_table`, `huffman`, `hpack.Decoder`: blocks in.
* `encoder.BlockEncoder`: header blocks of responses, one for a worker; its `heads` are for `Response`, as those of
  `http1/encoder` are. `encode_head` makes the block of an interim response, `encode_fields` that of trailers.
* `request.StreamRequest`: a checked head, which `block_reader.BlockReader` makes. `sink.StreamSink`: the shell.
* `streams.Streams` and `Stream` (states, windows), `rates.Patience` (floods), `priority.WriteOrder`.
* `sender.Sender` (frames out) and `reader.Reader` (frames in), which answers SETTINGS, PING and streams' faults itself.

A connection is made so (`limits` are the service's `RequestLimits`, one `blocks = BlockEncoder(defaults)` a worker):

    streams = Streams(window)
    patience = Patience(now)
    sender = Sender(streams, patience, on_progress)
    reader = Reader(sink, streams, sender, patience, limits, most_streams)
    sender.begin({MAX_CONCURRENT_STREAMS: most_streams, MAX_HEADER_LIST_SIZE: header_list_limit(limits)})
    transport.write(sender.take())

Bytes come from the preface on: `reader.feed(data, now)`, then write `sender.take()`, again until it is empty or the
transport is full; then `sender.held = True` until it is not. `feed` raises `ConnectionFaultError`: call
`sender.goaway(error.code)`, write, close. `on_request` sets `stream.owner` (any object), and answers at once or later:
`sender.head(stream, blocks.block(response), body, end=...)`, then `data`, `trailers`; interim responses are heads with
`end=False`. Wait while `stream.write_paused`; `on_progress` says when not. When the application has taken n bytes of a
body, `sender.credit(stream, n)` lets the client send as many.
A response that ends before its request makes the sender reset the stream with NO_ERROR; to break one off, call
`sender.reset(stream, code)`. `streams.open` holds the streams that are not closed.
"""
