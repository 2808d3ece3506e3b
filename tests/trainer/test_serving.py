"""A service of one's own that does not start says why."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainer.errors import UserError
from trainer.serving import running, serving


def test_a_service_that_cannot_start_is_reported_with_its_last_words(tmp_path: Path) -> None:
    flags = ("--checkpoint", str(tmp_path / "none"))
    with (
        pytest.raises(UserError, match=r"exit code 2(.|\n)*there is no checkpoint directory"),
        serving(tmp_path / "store", tmp_path / "logs" / "service.log", *flags),
    ):
        raise AssertionError("it serves")


def test_a_process_ends_with_its_block(tmp_path: Path) -> None:
    with running([sys.executable, "-c", "import time; time.sleep(99)"], tmp_path / "log") as process:
        assert process.poll() is None
    assert process.poll() is not None
