"""Networks that compute the same faster, once they are trained."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_normalisations(network: nn.Module) -> None:
    """Fold normalisations into the convolutions before them, in every ``Sequential`` of a network.

    The function stays the same; the network, in evaluation mode, cannot be trained any more.
    """
    for part in list(network.modules()):
        if not isinstance(part, nn.Sequential):
            continue
        folded: list[nn.Module] = []
        for layer in part:
            before = folded[-1] if folded else None
            if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d) and isinstance(
                before, nn.Conv2d | nn.Conv3d
            ):
                folded[-1] = fuse_conv_bn_eval(before, layer)
            else:
                folded.append(layer)
        for index in reversed(range(len(part))):
            del part[index]
        part.extend(folded)
