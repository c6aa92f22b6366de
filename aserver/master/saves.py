"""Answers a saved file (`reload`): new workers for the user's own code, a new generation for everything else.

Runs in the master's loop. New workers are forked from a zygote that has the installed packages already; settings, the
environment and packages need another zygote.
"""

import os
from collections.abc import Callable
from typing import Self

from aserver.master.core.events import CodeChanged
from aserver.master.file_watch import FileWatch, Patterns, in_words, installed_in
from aserver.master.resources import Resources


class Saves:
    """Watches the project of `resources`; `change` takes a change of code, `reload` the words for any other."""

    def __init__(
        self, resources: Resources, change: Callable[[CodeChanged], None], reload: Callable[[str], None]
    ) -> None:
        config = resources.config
        self._base = os.path.abspath(resources.directory or ".")
        settings = [config.config, config.env_file, *config.certfile, *config.keyfile]
        files = [os.path.join(self._base, each) for each in settings if each]
        self._patterns = Patterns(config.reload_include, config.reload_exclude, files)
        self._change = change
        self._reload = reload
        below = [*(config.reload_dir or (".", *config.app_dir.split(","))), config.chdir or "."]
        places = {os.path.abspath(os.path.join(self._base, place)) for place in below}
        self.watch = FileWatch(places, self._patterns, config.reload_delay, self._saved)

    @classmethod
    def watched(
        cls, resources: Resources, change: Callable[[CodeChanged], None], reload: Callable[[str], None]
    ) -> Self | None:
        """None unless the settings say `reload`."""
        return cls(resources, change, reload) if resources.config.reload else None

    def _saved(self, files: frozenset[str]) -> None:
        others = [file for file in files if installed_in(file) or self._patterns.is_environment(file)]
        if others:
            self._reload(in_words(others, self._base))
        else:
            self._change(CodeChanged(in_words(files, self._base)))
