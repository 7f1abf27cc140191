"""Someone else's learner trains a landmark agent: Stable-Baselines3's DQN, through Gymnasium."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from nilearn.datasets import load_mni152_template
from numpy.typing import NDArray
from stable_baselines3 import DQN

from medrl.landmark.env import GYMNASIUM_ID

SUBJECT, LANDMARK = "IXI013-HH-1212", "4thVentricle_centroid"
STEPS = 2500
EPISODES = 30

Policy = Callable[[dict[str, Any]], int]


@pytest.fixture(scope="module")
def head(request: pytest.FixtureRequest) -> tuple[MetaTensor, list[float]]:
    """A head MRI and a landmark: a training subject, or without data the MNI152 template."""
    try:
        folder: Path = request.getfixturevalue("data_root") / "ixi_brain_t1"
    except pytest.skip.Exception:
        image, point = load_mni152_template(resolution=2), [0.0, -46.0, -32.0]
    else:
        image = nib.load(folder / "t1" / f"{SUBJECT}.nii.gz")
        with open(folder / "landmarks.csv", newline="") as file:
            rows = {(row["subject"], row["landmark"]): row for row in csv.DictReader(file)}
        point = [float(rows[SUBJECT, LANDMARK][axis]) for axis in "xyz"]
    volume = torch.from_numpy(np.asarray(image.dataobj, dtype=np.float32))
    return MetaTensor(volume[None], affine=torch.from_numpy(image.affine)), point


def play(env: gymnasium.Env, policy: Policy) -> NDArray[np.float64]:
    """Returns of some episodes, always from the same starts."""
    returns = []
    env.action_space.seed(0)
    for episode in range(EPISODES):
        seen, _ = env.reset(seed=1000 + episode)
        total, done = 0.0, False
        while not done:
            seen, reward, terminated, truncated, _ = env.step(policy(seen))
            total, done = total + reward, terminated or truncated
        returns.append(total)
    return np.array(returns)


@pytest.mark.slow
def test_dqn_of_stable_baselines_learns(head: tuple[MetaTensor, list[float]]) -> None:
    scan, point = head
    torch.set_num_threads(1)
    env = gymnasium.make(
        GYMNASIUM_ID,
        scans=scan,
        points_world=[point],
        spacings=(8.0,),
        window=9,
        max_steps=30,
    )
    random_returns = play(env, lambda _: int(env.action_space.sample()))
    learner = DQN(
        "MultiInputPolicy",
        env,
        policy_kwargs={"net_arch": [128, 64]},
        gamma=0.5,
        learning_rate=1e-3,
        buffer_size=STEPS,
        learning_starts=500,
        batch_size=64,
        target_update_interval=500,
        exploration_fraction=0.5,
        exploration_final_eps=0.1,
        seed=0,
        device="cpu",
    )
    learner.learn(STEPS)
    returns = play(env, lambda seen: int(learner.predict(seen, deterministic=True)[0]))

    # The same starts: paired differences. Rewards add up to the steps that the agent came nearer.
    gain = returns - random_returns
    standard_error = gain.std(ddof=1) / np.sqrt(EPISODES)
    assert gain.mean() > 5 * standard_error
    assert returns.mean() > random_returns.mean() + 4
