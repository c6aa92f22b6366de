"""HTTP/1.0 and HTTP/1.1: bytes of a connection to requests, responses to bytes. Runs in the worker."""
