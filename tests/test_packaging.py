"""The package as people install it: its public names, its extras, and folders of theirs that have the same names."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import evoquality

ROOT = Path(__file__).parents[1]
WITHOUT = """
import importlib.abc, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocked())
sys.argv = {arguments}
{start}
"""
SERVER = {"fastapi", "filelock", "limits", "numpy", "pebble", "pydantic_settings", "uvicorn", "vllm", "torch"}
EVOQUALITY = "from service.cli import app; app()"
TRAINER = "from trainer.__main__ import main; main()"
TORCHRUN = "from trainer.torchrun import run; run()"


def test_the_exported_names_are_those_that_are_public():
    public = {name for name in vars(evoquality) if not name.startswith("_")}
    modules = {
        "annotations",
        "answers",
        "batch",
        "calls",
        "client",
        "contract",
        "lines",
        "network",
        "options",
        "retries",
    }
    assert set(evoquality.__all__) - {"__version__"} == public - modules
    assert evoquality.__version__ == version("evoquality-service")


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    """A folder with a `service` and a `trainer` of the user's own."""
    for name in ("service", "trainer"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('this is not ours')\n")
    return tmp_path


@pytest.mark.parametrize("program", ["evoquality", "evoquality-trainer"])
def test_commands_run_in_a_folder_with_a_users_own_service_and_trainer(users_folder: Path, program: str):
    command = [str(Path(sys.executable).with_name(program)), "--help"]
    done = subprocess.run(command, cwd=users_folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_pictures_are_decoded_in_a_folder_with_a_users_own_service(users_folder: Path):
    program = "import asyncio; from service.images.workers import workers; import os\nif __name__ == '__main__': "
    program += "print(asyncio.run(workers(1, False).run(os.path.basename, 'a/decoded', seconds=60)))"
    (users_folder / "bin").mkdir()
    (users_folder / "bin/program").write_text(program)
    command = [sys.executable, "bin/program"]  # as a console script: it lies elsewhere
    done = subprocess.run(command, cwd=users_folder, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("decoded\n", "")


@pytest.mark.parametrize("environment", [{}, {"PYTHONPATH": "."}])
def test_the_client_is_imported_beside_a_users_own_service(users_folder: Path, environment: dict[str, str]):
    code = "from evoquality import AsyncClient, Client, ServiceError; print(Client.__module__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=users_folder, env=environment, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("evoquality.client\n", "")


@pytest.mark.parametrize(
    ("start", "arguments", "blocked", "sentence"),
    [
        (EVOQUALITY, "serve --store S --port 1", SERVER, "serve needs the extra `cpu`: pip install"),
        (EVOQUALITY, "serve --store S", {"vllm"}, "serve needs the extra `cpu`: pip install"),
        (EVOQUALITY, "versions import x --store S", SERVER, "versions import needs the extra `serve`"),
        (EVOQUALITY, "versions promote v --store S", SERVER, "versions promote --store needs the extra `serve`"),
        (EVOQUALITY, "versions rollback --store S", SERVER, "versions rollback --store needs the extra `serve`"),
        (EVOQUALITY, "keys add me --file S", SERVER, "keys add needs the extra `serve`"),
        (EVOQUALITY, f"score {__file__} --out S.parquet", {"pyarrow"}, "S.parquet needs the extra `parquet`"),
        (TRAINER, "evolve --pool x --run S", {"torch"}, "evolve needs the extra `trainer`: pip install"),
        (TRAINER, "evolve --pool pool.parquet --run S", {"pyarrow"}, "a pool in Parquet needs the extra `parquet`"),
        (TRAINER, f"evolve --pool {ROOT} --run S --mlflow M", {"mlflow"}, "--mlflow needs the extra `mlflow`"),
        (TRAINER, "evaluate --benchmarks x --out S", SERVER, "evaluate needs the extra `trainer`"),
        (TRAINER, "audit --benchmarks x --out S", {"scipy"}, "audit needs the extra `trainer`"),
        (TRAINER, "report --run S", {"pandas"}, "report needs the extra `trainer`"),
        (TRAINER, "--help", {"pandas"}, "evoquality-trainer needs the extra `trainer`"),
        (TRAINER, "reprot --run S", {"pandas"}, "evoquality-trainer needs the extra `trainer`"),
        (TORCHRUN, "-m trainer -- report --run S", {"torch"}, "trainer.torchrun needs the extra `trainer`"),
    ],
)
def test_a_missing_extra_is_named_in_one_sentence_before_anything_is_made(
    tmp_path: Path, start: str, arguments: str, blocked: set[str], sentence: str
):
    (tmp_path / "pool.parquet").touch()
    code = WITHOUT.format(blocked=blocked, arguments=["x", *arguments.split()], start=start)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["pool.parquet"]


@pytest.mark.parametrize(
    "arguments", ["--help", "score --help", "compare --help", "rank --help", "versions list --help"]
)
def test_the_client_part_of_the_command_runs_without_the_server(arguments: str):
    code = WITHOUT.format(blocked=SERVER, arguments=["x", *arguments.split()], start=EVOQUALITY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_wheel_has_the_client_and_the_remedy_for_a_cpu_torch(tmp_path: Path):
    """`pip install '.[cpu]'` must be enough: the remedy is imported at the start of every Python process."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        ROOT,
    ]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert {"evoquality/__init__.py", "evoquality/contract.py", "evoquality/py.typed"} <= names
        assert {"service/web/index.html", "trainer/demo/checkpoint/config.json"} <= names
        assert not [name for name in names if name.startswith("service/client/evoquality")]
        assert archive.read("evoquality_cpu_torch.pth") == b"import evoquality_cpu_torch\n"
        remedy = archive.read("evoquality_cpu_torch.py")
    assert remedy == (ROOT / "service/cpu_torch.py").read_bytes()


def test_this_environment_has_the_remedy_for_torchvision():
    done = subprocess.run(
        [sys.executable, "-c", "import torchvision.ops; print('loaded')"], capture_output=True, text=True
    )
    assert done.stdout == "loaded\n", done.stderr


def test_companions_of_torch_whose_libraries_do_not_load_look_absent(tmp_path: Path):
    for package, library in (("torchaudio", "lib/_torchaudio.so"), ("torchcodec", "libtorchcodec_image.so")):
        file = tmp_path / package / library
        file.parent.mkdir(parents=True)
        file.write_bytes(b"built for another machine")
        (tmp_path / package / "__init__.py").write_text("raise OSError('Could not load this library')\n")
    code = "import transformers.utils as u, transformers.audio_utils, vllm.multimodal.media.audio\n"
    code += "print(u.is_torchaudio_available(), u.is_torchcodec_available())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "False False\n", done.stderr
