"""The file that `log_config` names, in JSON, TOML, YAML or the INI of logging.config, as a dictConfig; or JSON itself.

Runs in each process that logs. A file that was written for another server configures our loggers too: each logger of
that server is copied to the logger of `aserver` with the same records.
"""

import configparser
import importlib.util
import json
import logging
import tomllib
from pathlib import Path
from typing import Any

from aserver.errors import ConfigError
from aserver.log.uvicorn_formatters import STAND_INS

#: Other servers' loggers, and the loggers that have such records here.
LOGGERS = {
    "gunicorn.error": "aserver",
    "gunicorn.access": "aserver.access",
    "uvicorn": "aserver",
    "uvicorn.error": "aserver",
    "uvicorn.access": "aserver.access",
    "hypercorn.error": "aserver",
    "hypercorn.access": "aserver.access",
    "_granian": "aserver",
    "granian.access": "aserver.access",
}
#: Suffixes of the format that logging.config.fileConfig reads.
INI = frozenset({".ini", ".conf", ".cfg"})
_YAML = frozenset({".yaml", ".yml"})


def is_text(log_config: str) -> bool:
    """Whether the setting is not a path but the configuration itself, which gunicorn's `logconfig_dict` becomes."""
    return log_config.startswith("{")


def read(log_config: str) -> dict[str, Any]:
    """The dictConfig; of an INI file only the names of its loggers. A file with an unknown suffix is JSON.

    Raises ConfigError if the file cannot be read or parsed.
    """
    path = Path(log_config)
    suffix = "" if is_text(log_config) else path.suffix
    kind = "INI" if suffix in INI else "YAML" if suffix in _YAML else "TOML" if suffix == ".toml" else "JSON"
    name = "of logconfig_dict" if is_text(log_config) else log_config
    try:
        text = log_config if is_text(log_config) else path.read_text("utf-8")
        config = _parse(kind, text)
    except OSError as error:
        raise ConfigError(f"log_config {name}: cannot be read: {error.strerror}") from error
    except ImportError as error:
        raise ConfigError(
            f"log_config {name}: YAML needs PyYAML, which is not installed (pip install pyyaml)"
        ) from error
    except (ValueError, configparser.Error) as error:
        raise ConfigError(f"log_config {name}: cannot be read as {kind}: {error}") from error
    if not isinstance(config, dict):
        kind_found = type(config).__name__
        raise ConfigError(f"log_config {name}: must be an object with `handlers` and `loggers`, is a {kind_found}")
    config.setdefault("version", 1)
    config.setdefault("disable_existing_loggers", False)
    if isinstance(formatters := config.get("formatters"), dict):
        for formatter in formatters.values():
            for key in ("()", "class"):
                if isinstance(formatter, dict) and (instead := _stand_in(formatter.get(key))) is not None:
                    formatter[key] = instead
    if isinstance(loggers := config.get("loggers"), dict):
        for ours, theirs in _counterparts(loggers).items():
            like = loggers[theirs]
            # `aserver.access` is below `aserver`; without this, `aserver`'s handlers would write each line again.
            alone = {"propagate": False} if ours == "aserver.access" and like.get("handlers") else {}
            loggers.setdefault(ours, like | alone)
    return config


def _stand_in(name: object) -> str | None:
    """Our own class for a formatter of uvicorn's, where uvicorn is not installed."""
    instead = STAND_INS.get(name) if isinstance(name, str) else None
    return instead if instead is not None and importlib.util.find_spec("uvicorn") is None else None


def _counterparts(loggers: dict[str, Any]) -> dict[str, str]:
    """Our loggers, and for each the other server's that it is like: the first that has handlers, or else the first."""
    found: dict[str, str] = {}
    for theirs, ours in LOGGERS.items():
        like = loggers.get(theirs)
        if not isinstance(like, dict):
            continue
        if ours not in found or (like.get("handlers") and not loggers[found[ours]].get("handlers")):
            found[ours] = theirs
    return found


def apply(log_config: str, config: dict[str, Any]) -> None:
    """Configure logging with the result of `read`. Raises the errors of logging.config."""
    # Imported here, because it costs master and zygote 7 ms each, and half of its own imports serve nothing else.
    from logging.config import dictConfig, fileConfig  # noqa: PLC0415

    if is_text(log_config) or Path(log_config).suffix not in INI:
        dictConfig(config)
    else:
        parser = configparser.RawConfigParser()
        parser.read(log_config, encoding="utf-8")
        for section in parser.sections():
            if (instead := _stand_in(parser.get(section, "class", fallback=None))) is not None:
                parser.set(section, "class", instead)
        fileConfig(parser, disable_existing_loggers=False)
        for ours, theirs in _counterparts(config["loggers"]).items():
            _alike(logging.getLogger(ours), logging.getLogger(theirs))


def _alike(logger: logging.Logger, other: logging.Logger) -> None:
    logger.setLevel(other.level)
    logger.propagate = other.propagate
    logger.handlers[:] = other.handlers


def _parse(kind: str, text: str) -> object:
    """Parse the text. Raises ValueError, configparser.Error, or ImportError if PyYAML is missing."""
    if kind == "INI":
        parser = configparser.RawConfigParser()
        parser.read_string(text)
        names = [each.strip() for each in parser.get("loggers", "keys").split(",")]
        loggers: dict[str, Any] = {
            parser.get(f"logger_{name}", "qualname", fallback=name): {
                "level": parser.get(f"logger_{name}", "level", fallback=None),
                "propagate": parser.getboolean(f"logger_{name}", "propagate", fallback=True),
                "handlers": parser.get(f"logger_{name}", "handlers", fallback=""),
            }
            for name in names
            if name != "root"
        }
        return {"loggers": loggers}
    if kind == "YAML":
        import yaml  # noqa: PLC0415 - optional

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from error
    return tomllib.loads(text) if kind == "TOML" else json.loads(text)
