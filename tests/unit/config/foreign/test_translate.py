"""Values and command lines of other servers, by the tables. Each docstring says how it was seen to fail."""

from aserver.config import foreign


def test_an_option_is_a_list_only_for_the_server_that_repeats_it() -> None:
    """Elsewhere the last one counts. Fails with one list of names for all servers: `h11` came as a list."""
    for words, values in {
        "gunicorn --pythonpath a --pythonpath b": {"pythonpath": "b"},
        "gunicorn -b :1 -b :2": {"bind": [":1", ":2"]},
        "uvicorn --http h11 --header a:b": {"http": "h11", "headers": ["a:b"]},
        "granian --http 2 --ssl-crl a --ssl-crl b": {"http": "2", "ssl_crl": ["a", "b"]},
        "hypercorn --server-name a --server-name b": {"server_names": ["a", "b"]},
        "uwsgi --http :1 --http :2 --pp a": {"http": [":1", ":2"], "pp": ["a"]},
    }.items():
        server, *rest = words.split()
        assert foreign.read_command_line(foreign.SERVERS[server], rest) == (values, [])
