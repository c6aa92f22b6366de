"""HTTP/1.0 and HTTP/1.1: requests are read from bytes, responses are made into bytes. Runs in the worker."""
