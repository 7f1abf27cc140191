"""One step of an optimizer, in full or mixed precision."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer


def optimize(
    loss: Tensor,
    optimizer: Optimizer,
    *,
    learning_rate: float,
    clip: float,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Compute gradients, clip them and change the weights.

    Args:
        loss: Scalar, with its graph.
        optimizer: What changes the weights; other parameters in the graph are left alone.
        learning_rate: Of this step (:func:`medrl.rl.schedule.one_cycle`).
        clip: Largest norm of all gradients together.
        scaler: Scales the loss where the forward pass was in mixed precision; a step whose
            gradients overflow is left out.
    """
    scaler = scaler or torch.amp.GradScaler(loss.device.type, enabled=False)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, clip)
    scaler.step(optimizer)
    scaler.update()
