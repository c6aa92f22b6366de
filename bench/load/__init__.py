"""The load generators: wrk with one Lua script, and a client of our own that forgives nothing."""
