"""The build hook that compiles `aserver/protocol/http1/plain.pyx` (Cython, a C compiler); `pyproject.toml` has when.

Runs in the build alone. Like mypyc's hook it leaves the library beside its source, and in no source distribution.
"""

import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("aserver", "protocol", "http1", "plain.pyx")


class CustomBuildHook(BuildHookInterface[Any]):
    """Builds the extension module, and adds it to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's
        """Compile; raises what Cython or the compiler raises."""
        from Cython.Build import cythonize
        from setuptools import Distribution, Extension
        from setuptools.command.build_ext import build_ext

        root = Path(self.root)
        with tempfile.TemporaryDirectory() as scratch:
            extension = Extension(
                ".".join(SOURCE.with_suffix("").parts), [str(root / SOURCE)], extra_compile_args=["-O3", "-g0"]
            )
            modules = cythonize([extension], build_dir=scratch, quiet=True)
            command = build_ext(Distribution({"name": "aserver", "ext_modules": modules}))
            command.build_lib, command.build_temp = str(root), scratch
            command.ensure_finalized()
            command.run()
            built = [str(Path(each).relative_to(root)) for each in command.get_outputs()]
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update({str(root / name): name for name in built})
