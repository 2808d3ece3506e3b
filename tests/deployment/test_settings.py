"""Every variable in the manifests is a setting of the program that reads it, and has a value that it takes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.configuration.settings import Settings
from service.configuration.sources import variable
from tests.deployment.worlds import Pod, World
from trainer.settings.evolve import EvolveSettings

TRAINER = "EVOQUALITY_TRAINER_"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith("EVOQUALITY_")]:
        monkeypatch.delenv(name)


def own(cluster: World, pod: Pod) -> dict[str, str]:
    return {name: text for name, text in cluster.environment(pod).items() if name.startswith("EVOQUALITY_")}


def mounts(pod: Pod) -> dict[str, bool]:
    """The paths of the pod's volumes: True if it may write there."""
    return {mount["mountPath"]: not mount.get("readOnly", False) for mount in pod.container["volumeMounts"]}


def test_the_service_takes_its_settings(cluster: World, monkeypatch: pytest.MonkeyPatch):
    for component in ("service", "rollout"):
        for pod in cluster.selected({"app.kubernetes.io/component": component}):
            given = own(cluster, pod)
            assert given.keys() <= set(map(variable, Settings.model_fields))
            for name, text in given.items():
                monkeypatch.setenv(name, text)
            settings = Settings()
            assert settings.role == ("rollout" if component == "rollout" else "serve")
            assert settings.follow is (component == "service")
            assert mounts(pod)[str(settings.store)] is False
            assert mounts(pod)[str(settings.state)] is True
            assert mounts(pod)[str(settings.key_file.parent)] is False


def test_the_trainer_takes_its_settings(cluster: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for pod in cluster.selected({"app.kubernetes.io/component": "trainer"}):
        given = own(cluster, pod)
        assert {name.removeprefix(TRAINER).lower() for name in given} <= EvolveSettings.model_fields.keys()
        assert mounts(pod)[given[f"{TRAINER}POOL"]] is False
        for name, text in (given | {f"{TRAINER}POOL": str(tmp_path)}).items():
            monkeypatch.setenv(name, text)
        settings = EvolveSettings()  # type: ignore[call-arg]  # from the environment
        assert mounts(pod)[str(settings.store)] is True
        assert mounts(pod)[str(settings.run.parent)] is True
        assert settings.operator_key_file
        assert mounts(pod)[str(settings.operator_key_file.parent)] is False
        assert settings.device.startswith("cuda") is ("nvidia.com/gpu" in pod.container["resources"]["limits"])


def test_the_key_lies_where_both_look_for_it(cluster: World):
    (file,) = cluster.get("Secret", "operator-key")["data"]
    for pod in cluster.pods():
        for name, text in own(cluster, pod).items():
            if name.endswith("_KEY_FILE"):
                (mount,) = (m for m in pod.container["volumeMounts"] if m["name"] == "operator-key")
                assert text == f"{mount['mountPath']}/{file}"


def test_no_model_is_fetched_by_a_pod_that_serves(cluster: World):
    offline = {pod.component: cluster.environment(pod).get("HF_HUB_OFFLINE") for pod in cluster.pods()}
    assert offline["service"] == "1"
    assert offline["import"] == "0"


def test_caches_lie_on_volumes_of_the_pods_own(cluster: World):
    for pod in cluster.pods():
        own_volumes = {volume["name"] for volume in pod.spec["volumes"] if "emptyDir" in volume}
        folders = {m["mountPath"] for m in pod.container["volumeMounts"] if m["name"] in own_volumes}
        assert "/tmp" in folders
        for name, folder in cluster.environment(pod).items():
            if name == "HOME" or name.endswith(("_CACHE_DIR", "_CACHE_ROOT")):
                assert "/" + folder.split("/")[1] in folders, f"{pod.name}: {name}"
