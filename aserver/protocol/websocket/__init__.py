"""WebSocket (RFC 6455, RFC 7692): handshake, frames, the application's side. Runs in the worker."""
