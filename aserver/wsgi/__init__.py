"""A WSGI application (PEP 3333) as an ASGI application: requests run in threads, their clients are the loop's."""
