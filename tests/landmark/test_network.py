"""The network's heads, and that the fast copy computes the same."""

import pytest
import torch

from medrl.landmark.network import LandmarkNetwork, Prediction, laplace_loss


@pytest.mark.parametrize("dueling", [True, False])
def test_the_copy_for_inference_computes_the_same(dueling):
    torch.manual_seed(0)
    network = LandmarkNetwork(landmarks=4, window=13, features=32, dueling=dueling)
    for _ in range(20):  # move the running statistics away from where they start
        network(3 * torch.randn(16, 1, 13, 13, 13) + 1)
    windows = torch.randn(8, 1, 13, 13, 13)
    slow, fast = network.eval()(windows), network.for_inference()(windows)
    for name, a, b in zip(Prediction._fields, slow, fast, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4, msg=name)
    assert not torch.equal(network(windows).values, network.train()(windows).values)


def test_dueling_values_are_state_value_plus_centred_advantage():
    torch.manual_seed(0)
    network = LandmarkNetwork(landmarks=3, window=13, features=16, dueling=True).eval()
    windows = torch.randn(5, 1, 13, 13, 13)
    values = network(windows).values
    state = network.state(network.encoder(windows))
    torch.testing.assert_close(values.mean(dim=-1), state)


def test_the_laplace_loss_is_a_likelihood():
    offset = torch.tensor([[[0.3, -1.2, 2.0]]])
    decision = Prediction(torch.zeros(1, 1, 6), torch.zeros(1, 1, 3), torch.tensor([[0.4]]))
    scale = torch.exp(torch.tensor(0.4))
    expected = -torch.distributions.Laplace(0.0, scale).log_prob(offset).sum(dim=-1)
    constant = 3 * torch.log(torch.tensor(2.0))
    torch.testing.assert_close(laplace_loss(decision, offset), expected - constant)
