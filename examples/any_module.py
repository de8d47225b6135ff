"""Any PyTorch module works by the paths of its parts: here one that takes arguments by name and returns a dictionary.

Prints:
    the same as with the weights set to zero: True
    the module is as it was: True
"""

import torch

import interpose as ip


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> dict[str, torch.Tensor]:
        hidden = torch.relu(self.encode(x)) * scale
        return {"hidden": hidden, "y": self.decode(hidden)}


torch.manual_seed(0)
network, x = Net(), torch.randn(3, 4)
before = network(x, scale=2.0)["y"]

net = ip.wrap(network)
with net.trace(x, scale=2.0):
    net.module("decode").input[:, :4] = 0
    y = net.output["y"].save()

by_hand = network.decode(network(x, scale=2.0)["hidden"] * torch.tensor([0.0] * 4 + [1.0] * 4))
print("the same as with the weights set to zero:", torch.allclose(y, by_hand))
print("the module is as it was:", torch.equal(network(x, scale=2.0)["y"], before))
