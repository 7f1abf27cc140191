"""How alike scans are, against scikit-image."""

import numpy as np
import pytest
from skimage.metrics import normalized_mutual_information as skimage_nmi

from medrl.volume.similarity import normalized_mutual_information


def test_information_as_by_scikit_image():
    rng = np.random.default_rng(0)
    a = rng.normal(size=50_000)
    b = np.abs(a) + 0.3 * rng.normal(size=a.size)
    a, b = (np.clip(v, *np.quantile(v, (0.001, 0.999))) for v in (a, b))
    assert normalized_mutual_information(a, b) == pytest.approx(skimage_nmi(a, b, bins=64))
    assert normalized_mutual_information(a, a) == pytest.approx(2)
    assert normalized_mutual_information(a, rng.permutation(a)) == pytest.approx(1, abs=0.02)
    assert normalized_mutual_information([], []) is None
    assert normalized_mutual_information(np.ones(9), np.ones(9)) is None
