"""HTTP/2 (RFC 9113): requests are read from bytes, responses are made into bytes. Runs in the worker.

These modules know no transport, loop or clock; `connection`, `carrier`, `tunnel`, `waiting`, `begin` use them:

* `errors`: `ConnectionFaultError` and `StreamFaultError`, each with its `code`; the codes.
* `frames`: types, flags, settings, checks of lengths; making frames. `static_table`, `huffman`, `hpack.Decoder`:
  reading header blocks.
* `encoder.BlockEncoder`: the header blocks of a worker's responses. Its `heads` are for `Response`, as those of
  `http1/encoder`. `encode_head` makes the block of an interim response, `encode_fields` the block of trailers.
* `request.StreamRequest`: a checked head, made by `block_reader.BlockReader`. `sink.StreamSink`: the reader's receiver.
* `streams.Streams` and `Stream`: states and windows. `rates.Patience`: floods. `priority.WriteOrder`: which is next.
* `sender.Sender` makes frames. `reader.Reader` reads them, and answers SETTINGS, PING and faults of streams by itself.

A connection makes them so (`limits` are the service's `RequestLimits`, `blocks` is the worker's `BlockEncoder`):

    streams = Streams(window)
    patience = Patience(now)
    sender = Sender(streams, patience, on_progress)
    reader = Reader(sink, streams, sender, patience, limits, most_streams)
    sender.begin({MAX_CONCURRENT_STREAMS: most_streams, MAX_HEADER_LIST_SIZE: header_list_limit(limits)})
    transport.write(sender.take())

* Reading: `reader.feed(data, now)`, from the client's preface on. After `ConnectionFaultError` call
  `sender.goaway(error.code)`, write, and close.
* Writing: write `sender.take()` after each call, until it is empty or the transport is full. While the transport is
  full, set `sender.held`.
* Answering: `on_request` sets `stream.owner` (any object), and answers at once or later by
  `sender.head(stream, blocks.block(response), body, end=...)`, then `data` and `trailers`. An interim response is a
  head with `end=False`. Wait while `stream.write_paused`; `on_progress` is called when it is over.
* Bodies: when the application has taken n bytes, `sender.credit(stream, n)` lets the client send n more.
* Ends: if a response ends before its request, the sender resets the stream with NO_ERROR. To break a response off, call
  `sender.reset(stream, code)`. `streams.open` has the streams that are not closed.
"""
