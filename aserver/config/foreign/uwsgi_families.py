"""uWSGI's options that have no verdict of their own: its subsystems, each by the beginnings of its options' names.

Pure. `aserver.config.foreign.uwsgi` asks here for options that are not in its table.
"""

import re

from aserver.config.foreign.uwsgi_names import OPTIONS
from aserver.config.foreign.verdict import Verdict, unequal, unneeded

UWSGI_PROTOCOL = (
    "the uwsgi protocol is not spoken: the address speaks HTTP, so change the proxy "
    "(nginx: proxy_pass http://unix:/path; for uwsgi_pass)"
)
_ROUTER = "there is no router process: the workers speak HTTP themselves"
_PROXY = "let the proxy in front do that"
_TASKS = "use a task queue (celery, rq) or a service of its own"
_SUPERVISOR = "use systemd, or the container's runtime"
_LOG = "the log has errorlog, accesslog, access_log_format, log_format and log_config"
_RELOAD = "send SIGHUP: new code comes as a new generation and never costs a request"
_HOOK = "use the hooks of a Python settings file (docs/signals.md)"
_INI = "the file is read as it stands: the logic of uWSGI's configuration language is not carried out"
_STATIC = "`static` serves files (--static /PREFIX=DIRECTORY), else the proxy does"


def _family(beginnings: str, verdict: Verdict) -> tuple[str, Verdict]:
    """Beginnings are patterns with blanks between them."""
    return "|".join(beginnings.split()), verdict


#: The first pattern that fits the beginning of a name decides.
FAMILIES = (
    _family(
        r"harakiri no-harakiri",
        unneeded("request_timeout logs the stuck thread's stack with its request, and the worker is replaced"),
    ),
    _family(
        r"https?-auto-gzip static-gzip",
        unequal("let the proxy compress, or the application (Starlette's GZipMiddleware, Flask-Compress)"),
    ),
    _family(
        r"forkbomb-delay",
        unneeded("a worker that dies is always replaced, after growing pauses"),
    ),
    _family(
        r"setns",
        unequal(_SUPERVISOR),
    ),
    _family(
        r"(brutal-)?reload-on-(fd|exception)",
        unequal("an exception is a 500 and its traceback in the log, and the worker goes on"),
    ),
    _family(
        r"touch-log",
        unequal("send SIGUSR1: the logs are opened again"),
    ),
    _family(
        r"wsgi-disable-file-wrapper",
        unequal("wsgi.file_wrapper is always there, as PEP 3333 has it"),
    ),
    _family(
        r"(shared-)?(py-|py|python-)?import$",
        unequal("import it in the module of the target"),
    ),
    _family(
        r"py-tracebacker",
        unequal("`aserver stacks` prints the stacks of all threads"),
    ),
    _family(
        r"http2?s?-(processes|workers|events|to|zerg|fallback|use|subscription|stats|ss|cheap|quiet|uid|gid|gracetime)",
        unneeded(_ROUTER),
    ),
    _family(
        r"https?2?(-|$) http11",
        unneeded(_ROUTER),
    ),
    _family(
        r"(fast|raw|ssl)router zerg subscri unsubscribe start-unsubscribed rawrouter corerouter",
        unequal(_PROXY),
    ),
    _family(
        r"fastcgi scgi puwsgi suwsgi ssl-socket raw- udp multicast socket-(modifier|protocol) modifier",
        unequal(UWSGI_PROTOCOL),
    ),
    _family(
        r"emperor vassal imperial early-emperor heartbeat legion legion-",
        unequal(_SUPERVISOR),
    ),
    _family(
        r".*(-as-emperor|-as-vassal).*",
        unequal(_SUPERVISOR),
    ),
    _family(
        r"attach smart-attach unique cron legion-(attach|smart) daemons rb?timer timer signal mules? farm "
        r"spooler mule",
        unequal(_TASKS),
    ),
    _family(
        r"cache load-file-in add-cache check-cache queue sharedarea py-sharedarea rpc locks?$ lock-engine "
        r"ftok persistent",
        unequal("use redis or memcached"),
    ),
    _family(
        r"hook exec call mount umount after-request wait-for wait-i worker-exec",
        unequal(_HOOK),
    ),
    _family(
        r"if end for blacklist whitelist inherit include inject set declare resolve get$ print iprint exit$ "
        r"config xml ya?ml js fallback-config skip-zero ini-",
        unequal(_INI),
    ),
    _family(
        r"touch fs- reload exit-on-reload brutal stop$ pause suspend resume check-interval propagate "
        r"mount(point)?-check check-mount refork re-fork",
        unequal(_RELOAD),
    ),
    _family(
        r"static check-static fileserve file-serve mime offload honour-range disable-sendfile .*gzip",
        unequal(_STATIC),
    ),
    _family(
        r"route final error-route response-route error-page",
        unequal(_PROXY),
    ),
    _family(
        r"log req-logger logger loggers alarm .*-alarm$ not-alarm lq- rsyslog .*syslog cheap-log",
        unequal(_LOG),
    ),
    _family(
        r"metric alarm-metric stats snmp carbon nagios rrdtool ganglia push statsd",
        unequal("the admin endpoint (admin) has metrics, and statsd_host sends them"),
    ),
    _family(
        r"cheap idle die-on-idle vassal-sos",
        unequal("a fixed number of workers runs; TTIN and TTOU change it"),
    ),
    _family(
        r"so- socket-(sndbuf|rcvbuf|send|write) tcp-fast max-fd listen shutdown-sockets map-socket backlog",
        unneeded("the listener's options are set for a web server"),
    ),
    _family(
        r"ssl sni tls",
        unequal("certfile, keyfile, ca_certs, cert_reqs, ciphers and tls_min_version say it; several go by SNI"),
    ),
    _family(
        r"chroot pivot unshare setns jailed cgroup namespace ns-? limit- prio cpu-affinity ksm never-swap "
        r"master-as-root drop-after cap$",
        unequal(_SUPERVISOR),
    ),
    _family(
        r"gevent ugreen loop greenlet fiber asyncio tornado",
        unequal("WSGI requests run in threads, and nothing is monkey-patched"),
    ),
    _family(
        r"py wsgi python web3 pump paste pecan shared- import optimize test$ eval sym start_response no-site "
        r"catch allowed-mod",
        unequal("the interpreter is started plainly, and the target is imported as Python does it"),
    ),
    _family(
        r"pcre-jit profiler backtrace pyshell ping extract connect cflags dot-h build dump show help usage binary "
        r"dlopen autoload need- plugins?- command-mode version",
        unequal("a command of uWSGI itself; `aserver check` and `aserver config` are ours"),
    ),
    _family(
        r"(thread|threads)-stack-?size",
        unneeded("threads have the system's stacks"),
    ),
    _family(
        r"skip-atexit reaper no-fd-passing safe-fd fd-safe honour-stdin mem-collector use-abort st$ .*weight "
        r"undeferred",
        unneeded("processes, descriptors and their ends are the master's business"),
    ),
    _family(
        r".*-?binary-patch binsh clock early-envdir envdir unenv file-write flock mode$ no-server "
        r"post-pymodule remap-mod worker-mount",
        unequal("do it in the unit file, the container, or the application; env and env_file set variables"),
    ),
    _family(
        r"exception-handler reload-on-exception body-read upload-progress chunked collect pull rem-header "
        r"del-header response-header vhost cgi max-(vars|apps) no-default-app ignore-script abstract",
        unequal("the application or the proxy does that"),
    ),
)


def family(name: str) -> Verdict | None:
    """The verdict on an option by its subsystem; None: uWSGI has no option of this name."""
    if name not in OPTIONS:
        return None
    return next((verdict for pattern, verdict in FAMILIES if re.match(pattern, name)), None)
