"""What a Job's controller does when a pod of it has failed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from tests.deployment.kustomize import Object

Action = Literal["FailJob", "Ignore", "Count", "FailIndex"]


def action(job: Object, exit_codes: Mapping[str, int], conditions: Collection[str] = ()) -> Action:
    """The first rule of `podFailurePolicy` that fits decides; Count, towards `backoffLimit`, if none does.

    `exit_codes` are the containers' by name, `conditions` the pod's that are true.
    """
    for rule in job["spec"].get("podFailurePolicy", {}).get("rules", []):
        if _fits(rule, exit_codes, conditions):
            return rule["action"]
    return "Count"


def _fits(rule: Object, exit_codes: Mapping[str, int], conditions: Collection[str]) -> bool:
    if "onPodConditions" in rule:
        return any(
            each["type"] in conditions and each.get("status", "True") == "True" for each in rule["onPodConditions"]
        )
    asked = rule["onExitCodes"]
    codes = [code for name, code in exit_codes.items() if name == asked.get("containerName", name) and code]
    return any((code in asked["values"]) == (asked["operator"] == "In") for code in codes)
