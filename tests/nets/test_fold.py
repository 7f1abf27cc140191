"""Networks that are folded for inference, against themselves before."""

from __future__ import annotations

import torch
from torch import nn

from medrl.localization.network import Proposer
from medrl.nets.fold import fold_normalisations


def test_a_folded_network_computes_the_same():
    torch.manual_seed(0)
    network = Proposer(targets=3, widths=(4, 8, 8, 8))
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm3d):
            nn.init.uniform_(layer.running_mean, -1, 1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, -1, 2)
            nn.init.uniform_(layer.bias, -1, 1)
    network.eval()
    scans = torch.randn((2, 1, 16, 24, 8))
    before = network(scans)
    fold_normalisations(network)
    assert not any(isinstance(layer, nn.BatchNorm3d) for layer in network.modules())
    for own, expected in zip(network(scans), before, strict=True):
        torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-4)
