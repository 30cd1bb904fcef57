"""One training run in several processes, one a GPU: torchrun starts them, fastai shares out the batches."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from fastai.learner import Learner
from fastai.torch_core import distrib_barrier

from lobbycard.errors import InputError

PATIENCE = timedelta(days=1)  # that one process waits for another: the first one alone downloads, packs and fits

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process's place among those that train together; the first one alone writes files and tells how it goes."""

    rank: int = 0
    count: int = 1
    local: int = 0  # rank on its own host, and the number of its GPU there

    @classmethod
    def from_environment(cls) -> "Processes":
        """As the variables say that torchrun and `accelerate launch` set; alone where they are not set."""
        count = int(os.environ.get("WORLD_SIZE", 1))
        if count == 1:
            return cls()
        return cls(int(os.environ.get("RANK", 0)), count, int(os.environ.get("LOCAL_RANK", 0)))

    @property
    def first(self) -> bool:
        return self.rank == 0

    def place(self, device: torch.device) -> torch.device:
        """This process's own device, of the kind that was chosen for all. Raises InputError if there is none for it."""
        if self.count == 1 or device.type == "cpu":
            return device
        if device.type != "cuda":
            raise InputError(
                f"--device {device.type}: trains in one process, {self.count} were started; leave torchrun out"
            )
        if self.local >= torch.cuda.device_count():
            raise InputError(
                f"process {self.local + 1} on this machine has no GPU: {torch.cuda.device_count()} are here; give torchrun "
                f"--nproc-per-node {torch.cuda.device_count()}"
            )
        return torch.device("cuda", self.local)

    def meet(self, device: torch.device) -> None:
        """Connect to the others; does nothing for a process alone. Raises InputError where accelerate is not installed."""
        if self.count == 1:
            return
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise InputError(
                "training in several processes needs accelerate, which is not installed here: pip install '.[distributed]'"
            ) from error
        PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
        if not torch.distributed.is_initialized():
            raise InputError("the processes have not found each other; one process can train only once under torchrun")

    def part(self) -> None:
        """Go on alone: what fastai does later on must not wait for the others."""
        if self.count > 1:
            torch.distributed.destroy_process_group()
            os.environ["WORLD_SIZE"] = "1"  # which is what fastai asks

    def wait(self) -> None:
        """Until all have come here."""
        if self.count > 1:
            distrib_barrier()

    def by_first(self, work: Callable[[], T]) -> T:
        """What `work` gives in the first process, for all of them, once it is done there.

        Raises:
            SystemExit: in the others, where it failed; the first one raises and tells what happened.
        """
        if self.count == 1:
            return work()
        sent: list[Any] = [None, None]
        if self.first:
            try:
                sent = [work(), None]
            except BaseException as error:
                torch.distributed.broadcast_object_list([None, str(error) or type(error).__name__], src=0)
                raise
        torch.distributed.broadcast_object_list(sent, src=0)
        if sent[1] is not None:
            raise SystemExit(2)
        return sent[0]

    def share(self, batch_size: int) -> int:
        """Of a step's posters, those of one process. Raises InputError if they cannot be shared out evenly."""
        if batch_size % self.count or batch_size // self.count < 2:
            raise InputError(
                f"--batch-size {batch_size}: expected a multiple of {self.count}, the number of processes, and 2 or more for each"
            )
        return batch_size // self.count

    @contextmanager
    def together(self, learn: Learner) -> Iterator[None]:
        """While open, what is fitted and validated with `learn` is shared out, gradients and answers are gathered."""
        if self.count == 1:
            yield
            return
        from lobbycard.poster.sharing import Sharing

        with learn.added_cbs(Sharing(sync_bn=False, cpu=learn.dls.device.type == "cpu")):
            yield

    def ordering(self, loader: Any) -> Any:
        """The loader that draws an epoch's order: that of one process, which the shared one asks."""
        return loader if self.count == 1 else loader.dl
