"""Settings that contradict each other, or make no sense together.

Pure: it judges nothing that depends on the machine, such as whether a file or a user exists.
"""

from collections.abc import Mapping

from aserver.config.table import Table


def check(config: Table, origins: Mapping[str, str]) -> list[str]:
    """The contradictions: a sentence each, with the setting that is wrong and its origin."""
    mistakes: list[str] = []

    def refuse(wrong: bool, name: str, why: str) -> None:  # noqa: FBT001 - reads as a table
        if wrong:
            mistakes.append(f"{name} ({origins.get(name, 'default')}): {why}")

    both = "; if one file holds both, name it twice"
    tls = bool(config.certfile)
    certificates, keys = len(config.certfile), len(config.keyfile)
    refuse(tls and not config.keyfile, "certfile", "is set, but keyfile is not" + both)
    refuse(not tls and bool(config.keyfile), "keyfile", "is set, but certfile is not" + both)
    paired = f"names {certificates} files, but keyfile {keys}; they go in pairs" + both
    refuse(tls and 0 < keys != certificates, "certfile", paired)
    insisting = next((address for address in config.bind if address.startswith("https://")), None)
    cleartext = next((address for address in config.bind if address.startswith("h2c://")), None)
    admin = config.admin or ""
    refuse("://" in admin and not admin.startswith("fd://"), "admin", f"is {admin}; it is written without a scheme")
    refuse(not tls and insisting is not None, "bind", f"{insisting} needs a certificate, but certfile is not set")
    refuse(not config.http2 and cleartext is not None, "bind", f"{cleartext} is for HTTP/2, but http2 is off")
    refuse(config.keyfile_password is not None and not tls, "keyfile_password", "is set, but keyfile is not")
    refuse(not tls and config.ca_certs is not None, "ca_certs", "is set, but certfile is not: there is no TLS")
    refuse(not tls and config.cert_reqs != "none", "cert_reqs", "is set, but certfile is not: there is no TLS")
    refuse(
        config.cert_reqs != "none" and config.ca_certs is None,
        "cert_reqs",
        f"is {config.cert_reqs}, but without ca_certs no client's certificate can be checked",
    )
    refuse(
        config.max_surge == 0 and config.max_unavailable == 0,
        "max_surge",
        "is 0 and max_unavailable is 0 too: no worker could ever be replaced; make one of them at least 1",
    )
    refuse(not config.bind, "bind", "names no address; there would be nothing to serve")
    refuse(not config.forwarded_allow_ips and config.proxy_protocol != "off", "proxy_protocol", "nobody is trusted")
    refuse(
        len(set(config.bind)) < len(config.bind),
        "bind",
        f"names one address twice: {', '.join(config.bind)}",
    )
    return mistakes


def warnings(config: Table) -> tuple[str, ...]:
    """Likely mistakes that can be seen without a look at the system, a sentence each."""
    unix = any(address.startswith("unix:") for address in config.bind)
    inet = any(not address.startswith("unix:") for address in config.bind)
    plain = all(address.startswith(("http://", "h2c://", "unix:")) for address in config.bind)
    unlimited = config.min_lifetime > config.max_lifetime > 0
    replaced = config.max_unavailable
    likely = (
        (config.max_requests_jitter and not config.max_requests, "max_requests_jitter does nothing: max_requests is 0"),
        (config.max_lifetime_jitter and not config.max_lifetime, "max_lifetime_jitter does nothing: max_lifetime is 0"),
        (
            unlimited,
            f"max_lifetime {config.max_lifetime:g} s is below min_lifetime {config.min_lifetime:g} s, which wins",
        ),
        (
            isinstance(config.workers, int) and replaced >= config.workers and not config.reload,
            f"max_unavailable {replaced} with {config.workers} workers lets a reload leave nobody to serve",
        ),
        (
            0 < config.hang_timeout <= config.slow_callback,
            f"hang_timeout {config.hang_timeout:g} s kills before slow_callback {config.slow_callback:g} s can explain",
        ),
        (
            config.idle_grace > config.graceful_timeout,
            f"idle_grace {config.idle_grace:g} s is cut short by graceful_timeout {config.graceful_timeout:g} s",
        ),
        (
            (config.proxy_headers or config.proxy_protocol != "off") and "*" in config.forwarded_allow_ips and inet,
            "forwarded_allow_ips trusts everybody: any client that can connect can forge its address",
        ),
        (
            not unix and (config.uds_mode, config.uds_owner, config.uds_group) != (None, None, None),
            "uds_mode, uds_owner and uds_group do nothing: no unix socket is bound",
        ),
        (config.ca_certs is not None and config.cert_reqs == "none", "ca_certs does nothing: cert_reqs is none"),
        (config.ciphers is not None and not config.certfile, "ciphers does nothing: there is no TLS"),
        (config.certfile and plain, "certfile does nothing: every address in bind is plain"),
        (bool(config.preload_warmup) and not config.preload, "preload_warmup does nothing: preload is off"),
        (config.live and not config.reload, "live does nothing: reload is off"),
        (config.keep_serving and not config.reload, "keep_serving does nothing: reload is off"),
        (
            any(each.startswith("SCRIPT_NAME=") for each in config.env),
            "SCRIPT_NAME in env is not read; a prefix that a proxy takes off the path is `root_path`",
        ),
        (
            config.daemon and config.errorlog == "-",
            "daemon with errorlog '-': a detached server has no standard error, and its log is lost",
        ),
    )
    return tuple(message for wrong, message in likely if wrong)
