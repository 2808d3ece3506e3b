"""Every object that another one names is there, in every overlay."""

from __future__ import annotations

from tests.deployment.worlds import World, values


def test_every_claim_configmap_secret_and_account_exists(cluster: World):
    for pod in cluster.pods():
        for claim in values(pod.spec, "persistentVolumeClaim"):
            cluster.get("PersistentVolumeClaim", claim["claimName"])
        for source in (*values(pod.spec, "configMapRef"), *values(pod.spec, "configMap")):
            cluster.get("ConfigMap", source["name"])
        for secret in values(pod.spec, "secret"):
            cluster.get("Secret", secret["secretName"])
        account = cluster.get("ServiceAccount", pod.spec["serviceAccountName"])
        assert account["automountServiceAccountToken"] is pod.spec["automountServiceAccountToken"] is False


def test_every_volume_is_mounted_and_every_mount_has_a_volume(cluster: World):
    for pod in cluster.pods():
        mounts = pod.container["volumeMounts"]
        assert {mount["name"] for mount in mounts} == {volume["name"] for volume in pod.spec["volumes"]}, pod.name
        assert len({mount["mountPath"] for mount in mounts}) == len(mounts)


def test_every_service_leads_to_a_port_of_a_pod(cluster: World):
    for service in cluster.all("Service"):
        pods = cluster.selected(service["spec"]["selector"])
        assert pods, service["metadata"]["name"]
        if service["spec"].get("clusterIP") == "None" and not any(pod.spec.get("subdomain") for pod in pods):
            continue  # names for a trainer on several nodes, which this overlay has none of
        for port in service["spec"]["ports"]:
            assert any(pod.ports.get(port["targetPort"]) == port["port"] for pod in pods), service["metadata"]["name"]


def test_a_pod_with_a_subdomain_has_the_headless_service_that_names_it(cluster: World):
    for pod in cluster.pods():
        if subdomain := pod.spec.get("subdomain"):
            service = cluster.get("Service", subdomain)["spec"]
            assert service["clusterIP"] == "None"
            assert service["publishNotReadyAddresses"]
            assert service["selector"].items() <= pod.labels.items()


def test_deployments_budgets_and_spreads_select_pods_that_exist(cluster: World):
    for deployment in cluster.all("Deployment"):
        template = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"].items() <= template.items()
    for selector in values([*cluster.all("PodDisruptionBudget"), *cluster.all("Deployment")], "matchLabels"):
        assert cluster.selected(selector), selector
    (budget,) = cluster.all("PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


def test_everything_lies_in_the_one_namespace(cluster: World):
    (namespace,) = cluster.all("Namespace")
    for made in cluster.objects:
        if made["kind"] not in {"Namespace", "ClusterQueue", "ResourceFlavor"}:
            assert made["metadata"]["namespace"] == namespace["metadata"]["name"], made["metadata"]["name"]


def test_the_addresses_that_pods_are_told_are_those_of_services(cluster: World):
    for pod in cluster.pods():
        for name, address in cluster.environment(pod).items():
            if name.endswith("_OPERATOR"):
                service, _, port = address.removeprefix("http://").partition(":")
                assert int(port) in {each["port"] for each in cluster.get("Service", service)["spec"]["ports"]}


def test_of_several_replicas_a_trainer_keeps_to_the_one_that_has_loaded_its_adapters(cluster: World):
    for pod in cluster.selected({"app.kubernetes.io/component": "trainer"}):
        address = cluster.environment(pod)["EVOQUALITY_TRAINER_OPERATOR"].removeprefix("http://")
        assert cluster.get("Service", address.partition(":")[0])["spec"]["sessionAffinity"] == "ClientIP"


def test_what_scales_and_queues_names_what_exists(cluster: World):
    for scaled in cluster.all("ScaledObject"):
        deployment = cluster.get("Deployment", scaled["spec"]["scaleTargetRef"]["name"])
        assert "replicas" not in deployment["spec"], "an apply would set back what was scaled"
    for queue in cluster.all("LocalQueue"):
        groups = cluster.get("ClusterQueue", queue["spec"]["clusterQueue"])["spec"]["resourceGroups"]
        for flavor in (flavor for group in groups for flavor in group["flavors"]):
            cluster.get("ResourceFlavor", flavor["name"])
    for job in cluster.all("Job"):
        if queue := job["metadata"]["labels"].get("kueue.x-k8s.io/queue-name"):
            cluster.get("LocalQueue", queue)


def test_the_queue_covers_what_the_trainer_asks_for(cluster: World):
    covered = [
        set(group["coveredResources"])
        for queue in cluster.all("ClusterQueue")
        for group in values(queue, "resourceGroups")
        for group in group
    ]
    for pod in cluster.selected({"app.kubernetes.io/component": "trainer"}):
        resources = pod.container["resources"]
        for group in covered:
            assert resources["requests"].keys() | resources["limits"].keys() <= group
