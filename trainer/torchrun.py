"""torchrun that exits as its trainer did: a supervisor reads one table of exit codes, whatever started the trainer.

    python -m trainer.torchrun --nproc-per-node 8 -m trainer.cli -- evolve --pool photos/ --run runs/7b

Arguments are torchrun's own; without `--` it would take `--run` for one of its.
"""

from __future__ import annotations

import sys

from trainer import termination


def run() -> int:
    """Runs the processes. Returns the exit code of the one that failed first, 128 and its number for a signal.

    Of those that failed within the same second the lowest rank counts: the others end because it did.
    """
    termination.listen()  # until torchrun does, after seconds of imports
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.run import main

    from trainer.cli import EXIT_SERVICE

    try:
        main()
    except ChildFailedError as failed:
        code = failed.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code
    except SignalException as ended:
        return 128 + ended.sigval
    except (RendezvousError, DistError) as lost:
        print(f"the trainer's processes on other machines cannot be reached: {lost}", file=sys.stderr)
        return EXIT_SERVICE
    return 0


if __name__ == "__main__":
    sys.exit(run())
