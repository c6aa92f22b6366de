"""The build hook that compiles what is written in Cython (which takes a C compiler); `pyproject.toml` has when.

Runs in the build alone. Like mypyc's hook it leaves each library beside its source, and in no source distribution.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = [Path("aserver", "protocol", "http1", "plain.pyx")]
if sys.platform == "linux":  # epoll
    SOURCES.append(Path("aserver", "protocol", "transport", "native.pyx"))


class CustomBuildHook(BuildHookInterface[Any]):
    """Builds the extension modules, and adds them to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's
        """Compile; raises what Cython or the compiler raises."""
        from Cython.Build import cythonize
        from setuptools import Distribution, Extension
        from setuptools.command.build_ext import build_ext

        root = Path(self.root)
        with tempfile.TemporaryDirectory() as scratch:
            extensions = [
                Extension(".".join(each.with_suffix("").parts), [str(root / each)], extra_compile_args=["-O3", "-g0"])
                for each in SOURCES
            ]
            modules = cythonize(extensions, build_dir=scratch, quiet=True)
            command = build_ext(Distribution({"name": "aserver", "ext_modules": modules}))
            command.build_lib, command.build_temp = str(root), scratch
            command.ensure_finalized()
            command.run()
            built = [str(Path(each).relative_to(root)) for each in command.get_outputs()]
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update({str(root / name): name for name in built})
