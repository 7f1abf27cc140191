"""What a model was trained on, as far as it can be measured on a scan, and what is unlike it.

A guard is stored in ``model.json`` beside the settings, so that it is read without any weights:
``guard_of(read_manifest(folder))``. A model that was trained before there were guards has none.
What a model's own encoder has seen is a further part, stored with the weights:
:mod:`medrl.nets.familiarity`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from medrl.bundles.build import settings_from

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from medrl.volume.appearance import Appearance

#: An answer for a scan that a model was not made for is at most this share of its threshold sure.
_CAP = 0.2
#: How much longer than any in training what a scan shows may be, or narrower the scan.
_ROOM = 1.2
#: How much shorter than any in training what a scan shows as a whole may be: a brain without its
#: skull is shorter than a head.
_SHORTER = 1.4
#: Share of the training scans whose contrast is ordinary, and how much farther another may be off.
_ORDINARY, _CONTRAST_ROOM = 0.95, 1.1
#: Of the values of scans that are no CT, and of a CT.
_UNITS = ("relative", "hounsfield")
#: Brightness that varies less in training is not blown up.
_LEAST_SPREAD = 0.02


@dataclass(frozen=True)
class Training:
    """What the training scans of one channel were like.

    Attributes:
        channel: Name of the model's channel; empty for a model that looks at one kind of scan.
        narrowest_mm: Shortest side of the smallest field of view.
        shortest_mm: Length of the shortest object that was whole; 0 if none was.
        longest_mm: Length of the longest object; 0 if any length will do.
        unit: Of the values: ``hounsfield`` as of a CT, ``relative`` as of MRI, or ``any`` if the
            model was trained on any contrast.
        contrast_mean: Mean of :attr:`medrl.volume.appearance.Appearance.contrast`.
        contrast_spread: Standard deviation of it.
        contrast_limit: Largest root mean square distance from the mean, in standard deviations.
    """

    channel: str
    narrowest_mm: float
    shortest_mm: float
    longest_mm: float
    unit: str
    contrast_mean: tuple[float, ...]
    contrast_spread: tuple[float, ...]
    contrast_limit: float

    @staticmethod
    def fit(
        scans: Sequence[Appearance],
        *,
        changed: Sequence[Appearance] = (),
        channel: str = "",
        bounded: bool = True,
        least_view: float = 1.0,
        unit: str | None = None,
    ) -> Training:
        """Take in what training scans are like.

        Args:
            scans: What they look like as they are; at least one.
            changed: Further looks of them, with other sizes and fields of view.
            channel: Name of the model's channel.
            bounded: Whether the size of what a scan shows tells anything; not if models look only
                at a part of it.
            least_view: Smallest part of a field of view that is as good as all of it.
            unit: See the attributes; found out from the scans if None.
        """
        import numpy as np

        every = [*scans, *changed]
        whole = [scan.length_mm for scan in every if not scan.cut]
        contrasts = np.stack([scan.contrast for scan in scans])
        mean, spread = contrasts.mean(axis=0), contrasts.std(axis=0).clip(min=_LEAST_SPREAD)
        found = Training(
            channel,
            least_view * min(scan.narrowest_mm for scan in every) / _ROOM,
            min(whole) / _SHORTER if bounded and whole else 0.0,
            max(scan.length_mm for scan in every) * _ROOM if bounded else 0.0,
            unit or _UNITS[sum(scan.hounsfield for scan in scans) > len(scans) / 2],
            tuple(mean.tolist()),
            tuple(spread.tolist()),
            0.0,
        )
        off = np.quantile([found.contrast_distance(scan) for scan in scans], _ORDINARY)
        return replace(found, contrast_limit=float(off) * _CONTRAST_ROOM)

    def reasons(self, scan: Appearance) -> list[str]:
        """What is unlike the training scans, in plain words."""
        found = []
        if scan.narrowest_mm < self.narrowest_mm:
            found.append(
                f"size: the scan is {scan.narrowest_mm:.0f} mm across; those it was trained on "
                f"are at least {self.narrowest_mm:.0f} mm"
            )
        too_short = not scan.cut and scan.length_mm < self.shortest_mm
        if too_short or 0 < self.longest_mm < scan.length_mm:
            between = f"{self.shortest_mm:.0f} to " if self.shortest_mm else "at most "
            found.append(
                f"size: what the scan shows is {scan.length_mm:.0f} mm long; in those it was "
                f"trained on it is {between}{self.longest_mm:.0f} mm"
            )
        if self.unit not in ("any", _UNITS[scan.hounsfield]):
            words = ("not in Hounsfield units", "in Hounsfield units, as of a CT")
            found.append(
                f"modality: its values are {words[scan.hounsfield]}; those it was trained on "
                f"are {words[not scan.hounsfield]}"
            )
        return found

    def contrast_distance(self, scan: Appearance) -> float:
        """How far a contrast is from the mean of training, in standard deviations."""
        import numpy as np

        off = (scan.contrast - np.array(self.contrast_mean)) / np.array(self.contrast_spread)
        return float(np.sqrt((off**2).mean()))

    def has_contrast_of(self, scan: Appearance) -> bool:
        """Whether things are about as bright as in training."""
        return self.unit == "any" or self.contrast_distance(scan) <= self.contrast_limit


@dataclass(frozen=True)
class Guard:
    """What is to be known of a model's training to doubt its answers on a scan unlike that.

    Attributes:
        scans: Of each of the model's channels.
    """

    scans: tuple[Training, ...]

    def reasons(self, scan: MetaTensor, *, channel: str | None = None) -> tuple[str, ...]:
        """Why a model was not made for a scan, in plain words with what is measured and allowed.

        Args:
            scan: MetaTensor (1, I, J, K) with its voxel-to-world affine (RAS mm).
            channel: Which of the model's channels it is; the one that it fits best if None.

        Returns:
            One line each, the plainest first; none if nothing speaks against it. What only the
            model's encoder can tell, such as another contrast or organ of the same size, is not
            among them.

        Raises:
            MedrlError: If the scan is constant, or its affine unusable.
        """
        from medrl.volume.appearance import appearance

        seen = appearance(scan)
        every = [
            training.reasons(seen) for training in self.scans if channel in (None, training.channel)
        ]
        fewest = min(every, key=len) if every else []
        return tuple(fewest)

    def unfamiliar(self, scan: MetaTensor, share: float) -> str:
        """Say what a scan is unlike whose parts look strange to a model's encoder.

        Args:
            scan: MetaTensor (1, I, J, K).
            share: How far what the encoder sees is from what it saw in training, as a share of
                what is allowed.
        """
        from medrl.volume.appearance import appearance

        seen = appearance(scan)
        if any(training.has_contrast_of(seen) for training in self.scans):
            what = "pose or anatomy: what it sees is"
        else:
            what = "contrast or anatomy: things have another brightness, and what it sees is"
        return f"{what} {share:.1f} times as unlike its training as is allowed"


def guard_of(manifest: Mapping[str, Any]) -> Guard | None:
    """The guard of a model, from its ``model.json``; None if it has none.

    Raises:
        MedrlError: If it is damaged.
    """
    content = manifest.get("guard")
    return None if content is None else settings_from(Guard, content)


def not_made_for(model: str, reasons: Sequence[str]) -> str:
    """The one line that says that a model was not made for a scan, and why."""
    return f"{model} was not made for this scan, do not rely on it: {'; '.join(reasons)}"


def doubted(confidence: float, *, threshold: float = 0.5) -> float:
    """What is left of a confidence in an answer for a scan that a model was not made for.

    Args:
        confidence: What the model itself says.
        threshold: Confidence from which its answers are trusted.
    """
    return min(confidence, _CAP * threshold)
