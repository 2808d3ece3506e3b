"""A build command that installs `cpu_torch.py` as a module that Python imports at its start.

Settings in pyproject.toml cannot do that. The module lies at the top of site-packages under a name of its own, so that
no folder of the user's can take its place.
"""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory

from setuptools.command.build_py import build_py

MODULE = Path("service/cpu_torch.py")
NAME = "evoquality_cpu_torch"


class BuildPy(build_py):
    """Adds the module, and the .pth file that imports it, to a wheel or an editable installation."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            _write(Path(self.build_lib))
            return
        site = Path(sysconfig.get_path("purelib")).relative_to(sysconfig.get_path("data"))
        with TemporaryDirectory() as folder:  # an editable wheel takes data files, and nothing from the build's folder
            self.distribution.data_files = [(str(site), _write(Path(folder)))]
            self.run_command("install_data")


def _write(folder: Path) -> list[str]:
    module, link = folder / f"{NAME}.py", folder / f"{NAME}.pth"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(MODULE, module)
    link.write_text(f"import {NAME}\n")
    return [str(module), str(link)]
