"""`make images`: how it takes over pip's settings, how it confines what it runs, what it says where it cannot run."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.deployment.images.__main__ import TOOLS, missing
from tests.deployment.images.containers import Container, network
from tests.deployment.images.storage import pip_volumes


def may_make_namespaces() -> bool:
    """As root of a machine; not as root of most containers."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "setpriv"))):
        return False
    return subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True).returncode == 0


NEEDS_ROOT = pytest.mark.skipif(not may_make_namespaces(), reason="needs root that may make namespaces, and util-linux")


def test_a_build_installs_from_where_this_machine_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels, index = tmp_path / "wheels", tmp_path / "mirror/simple"
    for folder in (wheels, index):
        folder.mkdir(parents=True)
    (tmp_path / "here.conf").write_text(f"[global]\nextra-index-url = file://{index}\ntimeout = 5\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "here.conf"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_TIMEOUT", "60")
    volumes = pip_volumes(tmp_path)
    written = configparser.ConfigParser()
    written.read(tmp_path / "pip.conf")
    assert written["global"]["extra-index-url"] == f"file://{index}"
    assert written["global"]["timeout"] == "60"
    assert {f"--volume={path}:{path}:ro" for path in (wheels, index.parent)} <= set(volumes)
    assert f"--volume={tmp_path}/pip.conf:/etc/pip.conf:ro" in volumes


def test_a_machine_that_lacks_a_tool_is_named_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = missing() or ""
    assert "docker build -f docker/service.Dockerfile ." in found
    if os.geteuid() == 0:
        assert "apt-get install" in found and all(tool in found for tool in TOOLS)
    else:
        assert "sudo make images" in found


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    """This machine's own /usr as an image, with a volume."""
    root, volume = tmp_path / "root", tmp_path / "volume"
    for folder in ("usr", "proc", "sys", "dev", "tmp", "volume"):
        (root / folder).mkdir(parents=True)
    for folder in ("bin", "sbin", "lib", "lib64"):
        (root / folder).symlink_to(f"usr/{folder}")
    volume.mkdir()
    os.chown(volume, 10001, 10001)
    how = {"User": "10001:10001", "Entrypoint": ["sh", "-c"], "WorkingDir": "/tmp", "Env": ["PATH=/bin", "A=b"]}
    with network() as inside:
        yield Container(root, how, inside, ["/usr:/usr:ro", f"{volume}:/volume"])


@NEEDS_ROOT
def test_a_container_has_its_own_user_and_no_rights(container: Container) -> None:
    found = container.run(
        "id -u; id -g; echo $A $HOME; pwd; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status"
    ).stdout
    assert found.split()[:4] == ["10001", "10001", "b", "/tmp"]
    assert found.split()[4:] == ["CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]


@NEEDS_ROOT
def test_a_container_writes_its_volume_and_memory_alone(container: Container) -> None:
    container.run("touch /tmp/x /dev/shm/x /volume/x")
    mounts = dict(line.split()[1::2][:2] for line in container.run("cat /proc/mounts").stdout.splitlines())
    assert {place for place in ("/", "/usr", "/sys") if "ro" in mounts[place].split(",")} == {"/", "/usr", "/sys"}


@NEEDS_ROOT
def test_a_container_reaches_nothing_but_itself(container: Container) -> None:
    assert "127.0.0.1" in container.run("cat /proc/net/fib_trie").stdout
    assert container.run("tail --lines=+3 /proc/net/dev").stdout.count("\n") == 1


@NEEDS_ROOT
def test_a_container_gets_sigterm(container: Container, tmp_path: Path) -> None:
    waits = "trap 'echo ended; exit 0' TERM; touch /volume/started; while :; do sleep 0.05; done"
    container = replace(container, configuration={**container.configuration, "Cmd": [waits]})
    with container.running(tmp_path / "log") as process:
        while not (tmp_path / "volume/started").exists():
            assert process.poll() is None
    assert process.returncode == 0
    assert (tmp_path / "log").read_text() == "ended\n"
