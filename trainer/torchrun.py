"""torchrun with the exit code of its trainer, so that a supervisor needs one table of exit codes for both.

    python -m trainer.torchrun --nproc-per-node 8 -m trainer -- evolve --pool photos/ --run runs/7b

The arguments are torchrun's own; `--` keeps it from reading `--run` as one of its flags.
"""

from __future__ import annotations

import os
import sys

from trainer.__main__ import begin
from trainer.errors import RankLost


def run() -> int:
    """Runs the processes. Returns the exit code of the first failure, 128 plus the number of a signal.

    The other ranks of its machine let rank 0 end first (see `trainer.training.distributed`).
    """
    if sys.flags.safe_path:  # -P, which torchrun does not pass on
        os.environ["PYTHONSAFEPATH"] = "1"
    begin("trainer.torchrun")  # torchrun itself listens only after seconds of imports
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.run import main

    try:
        main()
    except ChildFailedError as failed:
        code = failed.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code
    except SignalException as ended:
        return 128 + ended.sigval
    except (RendezvousError, DistError) as lost:
        print(f"the trainer's processes on other machines cannot be reached ({lost}); start it again", file=sys.stderr)
        return RankLost.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(run())
