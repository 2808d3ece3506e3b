"""Every failure that ends the trainer on purpose: its exit code, and whether a supervisor should start it again.

TrainerError           exit  start again
├── UserError            2   no     a person must mend what the sentence names
│   ├── PromptMismatch              engine and trainer encode the same question differently
│   ├── UnsupportedModel            the trainer does not compute what the model itself does
│   └── Refused                     the service refuses a request for good
├── Unreachable          3   yes    no replica of the service answers
│   ├── RefusedForNow               the service refuses a request that may succeed later
│   └── RankLost                    under torchrun: the process of rank 0 ended
├── WrongVersion         4   no     the service no longer serves the round's version
├── DiskFull             5   yes    also an OSError
├── Occupied             6   yes    another trainer works in the same folder
├── GateRefused         42   no     the candidate must not serve
├── Regressed           43   no     the promoted version was rolled back
├── Collapsed           44   no     training collapsed
├── NothingToLearn      45   no     neither votes nor answers say what is better
├── WrongProfile        46   no     the base answers in another format than its profile's
└── EngineMismatch      47   no     engine and trainer disagree about the same weights

The message is one sentence: the problem, its cause, and what to do. `trainer.cli` ends so for others too: with 2 for
the service's UserError and for what the version store refuses, with 2 or 3 for the client's ServiceError, with 3 for
httpx.TransportError. All the rest are bugs of the trainer's or failures of the machine: they keep their traceback, and
the trainer exits with 1.
"""

from __future__ import annotations

from typing import ClassVar

from service import errors as of_service


class TrainerError(Exception):
    """The trainer ends with `exit_code`; `restart` says whether starting it again can help."""

    exit_code: ClassVar[int]
    restart: ClassVar[bool]
    meaning: ClassVar[str]
    """The row of the exit code table."""


class UserError(TrainerError, of_service.UserError, ValueError):
    """Input that a person must mend. A ValueError too, so that a validator of the settings may raise it."""

    exit_code = 2
    restart = False
    meaning = "wrong settings or input, other settings than the round began with, or a request refused for good"


class PromptMismatch(UserError):
    """Engine and trainer encode the same image or question as different prompts."""


class UnsupportedModel(UserError):
    """The trainer does not compute the log-probabilities of this model's answers as the model itself does."""


class Refused(UserError):
    """The service refuses a request, and will refuse it again."""


class Unreachable(TrainerError):
    """No replica of the service answered within the trainer's patience."""

    exit_code = 3
    restart = True
    meaning = (
        "no answer from the service for `--patience` seconds, or a refusal that passes; under torchrun also: the "
        "process of rank 0 ended, and its own exit code says why"
    )


class RefusedForNow(Unreachable):
    """The service refuses a request that may succeed later."""


class RankLost(Unreachable):
    """The process of rank 0 ended, or the other machines cannot be reached."""


class WrongVersion(TrainerError):
    """The service no longer serves the version that this round started from."""

    exit_code = 4
    restart = False
    meaning = "the service serves another version than the round began with: promote that one again, or begin a new run"


class DiskFull(TrainerError, OSError):
    """A file could not be written for lack of space; earlier files are intact."""

    exit_code = 5
    restart = True
    meaning = "disk full: make room first, the message says where"


class Occupied(TrainerError):
    """Another trainer works in the same folder, and did not end in time."""

    exit_code = 6
    restart = True
    meaning = "another trainer works on the same store (waited for `--patience` seconds) or in the run's folder"


class GateRefused(TrainerError):
    """The candidate must not serve; the version it came from keeps serving."""

    exit_code = 42
    restart = False
    meaning = "the gate refused the candidate; the version from before serves"


class Regressed(TrainerError):
    """The promoted version did not behave as the gate had seen it; the version before it serves again."""

    exit_code = 43
    restart = False
    meaning = "the promoted version regressed, or a replica's canaries refused it; it was rolled back"


class Collapsed(TrainerError):
    """The policy under training collapsed onto a few answers, and the round was stopped."""

    exit_code = 44
    restart = False
    meaning = "training collapsed: begin a new run with a lower `--learning-rate` or a larger `--beta`"


class NothingToLearn(TrainerError):
    """The votes decide too few pairs, or all answers about an image earn the same reward."""

    exit_code = 45
    restart = False
    meaning = "nothing to learn from: the votes decide too few pairs, or all answers earn the same reward"


class WrongProfile(TrainerError):
    """The base does not answer in the format of its profile: its votes and scores would be unreadable."""

    exit_code = 46
    restart = False
    meaning = "the base does not answer in the format of its profile; the message names the profiles that would read it"


class EngineMismatch(TrainerError):
    """The engine gives the tokens that it sampled other probabilities than the trainer does under the same weights."""

    exit_code = 47
    restart = False
    meaning = "engine and trainer disagree about probabilities under the same weights; the message says what to look at"
