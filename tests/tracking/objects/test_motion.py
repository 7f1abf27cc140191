"""The Kalman filter against one written with matrices."""

import numpy as np
import torch
from scipy.linalg import block_diag

from medrl.tracking.objects import motion
from medrl.tracking.objects.motion import Noise

FLAT = torch.tensor([[False, False, False], [False, False, True]])
NOISE = Noise()


def boxes(seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    middle, side = rng.normal(0, 20, (2, 3)), rng.uniform(4, 9, (2, 3))
    side[1, 2], middle[1, 2] = 1.0, 0.0
    return torch.from_numpy(np.stack([middle - side / 2, middle + side / 2], axis=1))


def test_the_filter_is_the_one_of_the_textbook() -> None:
    seen = [boxes(seed) for seed in range(5)]
    state = motion.begin(seen[0], FLAT, NOISE)
    # Of the first object: six states, three positions and three velocities.
    mean = np.r_[seen[0][0].mean(dim=0).numpy(), np.zeros(3)]
    size = (seen[0][0, 1] - seen[0][0, 0]).numpy()
    scale = np.prod(size) ** (1 / 3)
    cov = block_diag(np.eye(3) * (0.08 * scale) ** 2, np.eye(3) * (0.35 * scale) ** 2)
    F, H = np.eye(6), np.eye(3, 6)
    F[:3, 3:] = np.eye(3)
    for box in seen[1:]:
        state = motion.predict(state, FLAT, NOISE)
        Q = block_diag(np.eye(3) * (0.05 * scale) ** 2, np.eye(3) * (0.08 * scale) ** 2)
        mean, cov = F @ mean, F @ cov @ F.T + Q
        np.testing.assert_allclose(state.position[0], mean[:3])
        variance = motion.spread(state, FLAT, NOISE)[0]
        S = H @ cov @ H.T + np.eye(3) * (0.08 * scale) ** 2
        np.testing.assert_allclose(variance, np.diag(S))
        state = motion.update(state, box, FLAT, NOISE)
        gain = cov @ H.T @ np.linalg.inv(S)
        mean = mean + gain @ (box[0].mean(dim=0).numpy() - H @ mean)
        cov = (np.eye(6) - gain @ H) @ cov
        size = 0.75 * size + 0.25 * (box[0, 1] - box[0, 0]).numpy()
        scale = np.prod(size) ** (1 / 3)
        np.testing.assert_allclose(state.position[0], mean[:3])
        np.testing.assert_allclose(state.velocity[0], mean[3:])
        np.testing.assert_allclose(state.covariance[0, 1], np.diag(cov[:3, 3:]))


def test_flat_objects_do_not_move_out_of_their_plane() -> None:
    state = motion.begin(boxes(0), FLAT, NOISE)
    for seed in range(1, 4):
        state = motion.update(motion.predict(state, FLAT, NOISE), boxes(seed), FLAT, NOISE)
    assert state.position[1, 2] == 0
    assert state.velocity[1, 2] == 0


def test_constant_velocity_is_learned() -> None:
    one = torch.tensor([[[0.0, 0.0, -0.5], [4.0, 4.0, 0.5]]], dtype=torch.float64)
    step = torch.tensor([1.5, -0.5, 0.0], dtype=torch.float64)
    flat = FLAT[1:]
    state = motion.begin(one, flat, NOISE)
    for frame in range(1, 40):
        state = motion.predict(state, flat, NOISE)
        state = motion.update(state, one + frame * step, flat, NOISE)
    torch.testing.assert_close(state.velocity[0], step, atol=1e-3, rtol=0)
