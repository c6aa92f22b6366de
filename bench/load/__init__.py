"""The load generators: wrk with a Lua script, and clients of our own for HTTP, WebSockets and attacks."""
