"""What a search costs is what it took, also where the process held more before."""

import time

import torch

import interpose as ip
from interpose.benchmark.cost import PROCESS, Meter, peak_memory

MEGABYTE = 2**20


def test_a_meter_sees_time_passes_and_memory_that_is_held_only_inside() -> None:
    model = ip.wrap(torch.nn.Linear(4, 4))
    before = torch.ones(200 * MEGABYTE // 4)  # held all along, so that it is no part of the cost
    del before
    meter = Meter(model)
    with meter.running():
        held = torch.ones(64 * MEGABYTE // 4)
        del held
        time.sleep(0.05)
        for _ in range(3):
            with model.trace(torch.ones(1, 4)):
                model.output.save()
    cost = meter.cost
    assert 0.05 <= cost.seconds < 60
    assert (cost.forward, cost.backward) == (3, 0)
    assert cost.memory is not None
    assert 63 * MEGABYTE < cost.memory < 150 * MEGABYTE
    assert cost.memory_of == PROCESS
    with meter.running():
        pass
    assert meter.cost.memory is not None and meter.cost.memory < 30 * MEGABYTE
    assert cost.to_dict()["forward"] == 3
    assert peak_memory() > 64 * MEGABYTE
