import pytest
import torch

from gloo import run_in_processes
from sanet import distributed


def everything():
    rank = distributed.rank()
    return (
        rank,
        distributed.world_size(),
        distributed.is_main_process(),
        distributed.all_reduce_sum(torch.tensor([rank + 1, 10])).tolist(),
        distributed.all_gather({"rank": rank}),
        distributed.broadcast_from_main(lambda: f"from {rank}"),
    )


def test_a_process_that_is_alone():
    assert everything() == (0, 1, True, [1, 10], [{"rank": 0}], "from 0")


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_processes_that_share_a_job(count):
    for rank, found in enumerate(run_in_processes(count, everything)):
        total = [sum(range(1, count + 1)), 10 * count]
        assert found == (rank, count, rank == 0, total, [{"rank": other} for other in range(count)], "from 0")


def test_a_total_leaves_its_tensor_alone():
    def both():
        values = torch.ones(2)
        return distributed.all_reduce_sum(values).tolist(), values.tolist()

    assert run_in_processes(2, both) == [([2.0, 2.0], [1.0, 1.0])] * 2
