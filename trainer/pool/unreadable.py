"""Pictures that cannot be read or scored: the reasons by their numbers, and what to do about the most frequent one."""

from __future__ import annotations

from collections import Counter

NO_ANSWER = "the model's answer has no score"
GONE = "there is no such file"
_SHOWN = 3
_REMEDIES = {
    NO_ANSWER: "if the model answers in another format, give its --profile",
    GONE: "correct the paths (those in a list are relative to the list), or mount what is missing",
    "Permission denied": "make the files readable for this user",
    "smaller than": "take larger pictures, or start the service with a smaller --min-image-side",
    "pixels on a side": "take smaller pictures, or start the service with a larger --max-image-side",
    "The image has more than": "take smaller pictures, or start the service with a larger --max-image-pixels",
    "is longer than": "take smaller files, or start the service with a larger --max-upload-bytes",
    "not a complete image": "replace damaged files; HEIC pictures need a service with --heif",
}
"""By a part of the reason; the first that fits."""


def told(reasons: Counter[str]) -> str:
    """The most frequent reasons and their numbers."""
    few = [f"{reason.rstrip('.')} ({number:,})" for reason, number in reasons.most_common(_SHOWN)]
    return ", ".join(few) + (", ..." if len(reasons) > _SHOWN else "")


def remedy(reasons: Counter[str]) -> str:
    """What to do about the most frequent reason."""
    [(reason, _)] = reasons.most_common(1)
    return next((advice for part, advice in _REMEDIES.items() if part in reason), "take those pictures out")
