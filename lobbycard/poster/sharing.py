"""fastai's way to share out batches among processes, made to work without CUDA, too.

A module of its own, since `fastai.distributed` can be imported only where accelerate is installed.
"""

import torch
from fastai.distributed import DistributedDL, DistributedTrainer


class Sharing(DistributedTrainer):
    """fastai's, with loaders that work without CUDA."""

    def _wrap_dl(self, dl):
        return dl if isinstance(dl, DistributedDL) else SharedDL(dl, device=self.learn.model.device)


class SharedDL(DistributedDL):
    """fastai's, which sends the order of an epoch through the memory of a GPU, and may count one batch too many."""

    def _broadcast(self, order, rank):
        sent = [list(order)]
        torch.distributed.broadcast_object_list(sent, src=rank)
        return sent[0]

    def __len__(self):
        mine = -(-self.dl.n // self.world_size)
        return mine // self.bs if self.drop_last else -(-mine // self.bs)
