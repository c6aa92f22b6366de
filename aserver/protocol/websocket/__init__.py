"""WebSocket (RFC 6455, RFC 7692): handshake, frames, and the session an application sees. Runs in the worker."""
