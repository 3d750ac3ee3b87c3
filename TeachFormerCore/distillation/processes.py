"""What looks at a batch as a whole, where several processes have a part of it each; alone, nothing is done."""

from torch import Tensor, distributed


def mean_over_processes(tensor: Tensor) -> Tensor:
    """The mean of every process's tensor, in place; of gradients it is that of the whole batch."""
    if _shared():
        distributed.all_reduce(tensor)
        tensor /= distributed.get_world_size()
    return tensor


def of_first_process(tensor: Tensor) -> Tensor:
    """The first process's tensor, in place."""
    if _shared():
        distributed.broadcast(tensor, 0)
    return tensor


def _shared() -> bool:
    return distributed.is_available() and distributed.is_initialized()
