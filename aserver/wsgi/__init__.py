"""A WSGI application (PEP 3333) as an ASGI one: requests run in threads, their clients are the loop's."""
