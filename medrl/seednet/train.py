"""Train a seed agent on a user's own scans and masks: the whole recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Generator

from medrl.bundles import save_guard
from medrl.data.targets import parse_target
from medrl.errors import MedrlError
from medrl.rl.stage import Progress, checkpoint_folder, reproducible, run_stage
from medrl.seednet.data import LabelledGrid, load_labelled, read_datalist
from medrl.seednet.guard import fit_guard
from medrl.seednet.learner import AgentLearner, AgentSettings
from medrl.seednet.model import ModelSettings, SeedModel
from medrl.seednet.perception import PerceptionLearner, PerceptionSettings
from medrl.seednet.sampling import Sampler, Sampling
from medrl.seednet.simulated_user import starts
from medrl.seednet.tune import tune_prior_weight, tune_stop_threshold
from medrl.volume.channels import parse_channel

if TYPE_CHECKING:
    from medrl.engines import Engine


@dataclass(frozen=True)
class TrainSettings:
    """The recipe.

    Attributes:
        name: Name of the model.
        channels: Images it looks at, ``NAME`` or ``NAME:INTENSITY`` with an intensity of
            ``relative`` (MR), ``hounsfield`` (CT) or ``suv`` (PET).
        targets: Kinds of object, ``NAME=LABEL,LABEL,...`` in the masks.
        spacing: Voxel size to work at, mm.
        half_width: Half the side of the window around a click, voxels.
        sampling: How training windows are drawn.
        perception: Supervised learning of what the agent sees.
        agent: Reinforcement learning of where it puts seeds.
        threads: CPU threads.
        device: Torch device.
        seed: Fixes every random choice.
        resume: Go on from the checkpoints in the output folder.
    """

    name: str = "my-seeds"
    channels: tuple[str, ...] = ("MR",)
    targets: tuple[str, ...] = ("object=1",)
    spacing: float = 1.0
    half_width: int = 32
    sampling: Sampling = field(default_factory=Sampling)
    perception: PerceptionSettings = field(default_factory=PerceptionSettings)
    agent: AgentSettings = field(default_factory=AgentSettings)
    threads: int = 2
    device: str = "cpu"
    seed: int = 0
    resume: bool = False

    def model_settings(self) -> ModelSettings:
        """Settings of the model that comes out, before tuning.

        Raises:
            MedrlError: If a channel or target is not written as it should be, there is none or
                one twice, or a size is not positive.
        """
        channels = tuple(parse_channel(text) for text in self.channels)
        targets = tuple(parse_target(text) for text in self.targets)
        for what, named in (("channel", channels), ("target", targets)):
            names = [one.name for one in named]
            if not names or len(set(names)) < len(names):
                raise MedrlError(f"every {what} needs a name of its own, and there must be one")
        if not self.spacing > 0 or self.half_width < 1:
            raise MedrlError("spacing and half_width must be more than 0")
        return ModelSettings(
            channels=channels,
            targets=targets,
            spacing=self.spacing,
            half_width=self.half_width,
        )


def train(
    settings: TrainSettings,
    *,
    data: Path,
    out: Path,
    card: Mapping[str, Any] | None = None,
    report: Progress = lambda *_: None,
    engine: Engine | None = None,
) -> Path:
    """Train a model and save it as a bundle.

    First the network learns to see, then the weight of its prior is set on the validation cases,
    then the agent learns, then its limit for stopping is set. Checkpoints are written to
    ``out/checkpoints`` and TensorBoard logs to ``out/logs``.

    Args:
        settings: The recipe.
        data: Datalist, see :func:`medrl.seednet.data.read_datalist`. Only its training and
            validation cases are looked at.
        out: Output folder.
        card: Model card: what users should know of the data, the licence and the limits.
        report: Called now and then.
        engine: Not used: each stage needs the one before.

    Returns:
        The bundle's folder, ``out/<name>``.

    Raises:
        MedrlError: If the data or settings are unusable.
    """
    checkpoints = checkpoint_folder(out, resume=settings.resume)
    model_settings = settings.model_settings()
    cases = read_datalist(data, [channel.name for channel in model_settings.channels])

    def load(split: str) -> list[LabelledGrid]:
        return load_labelled(
            cases[split],
            channels=model_settings.channels,
            targets=model_settings.targets,
            spacing=settings.spacing,
            progress=lambda done, total: report(f"reading {split}", done, total, {}),
        )

    training, validation = load("training"), load("validation")
    clicks = starts(
        validation,
        half_width=settings.half_width,
        seed=settings.seed,
        targets=[0],
        device=settings.device,
    )
    out.mkdir(parents=True, exist_ok=True)
    with reproducible(settings.seed, threads=settings.threads):
        network = model_settings.build_network()
        generator = Generator().manual_seed(settings.seed)
        sampler = Sampler(training, settings.sampling, generator)
        perception = PerceptionLearner(
            network, sampler, settings.perception, generator=generator, device=settings.device
        )
        run = partial(run_stage, logs=out / "logs", resume=settings.resume)
        run(perception, path=checkpoints / "perception.safetensors", report=report)

        model = tune_prior_weight(SeedModel(model_settings, network.eval()), clicks)
        report("prior weight", 1, 1, {"chosen": model.settings.prior_weight})
        agent = AgentLearner(model, sampler, settings.agent, generator=generator)
        run(agent, path=checkpoints / "agent.safetensors", report=report)

        model = tune_stop_threshold(SeedModel(model.settings, network.eval()), clicks)
        report("stop threshold", 1, 1, {"chosen": model.settings.stop_threshold})
        model = fit_guard(
            model,
            training,
            validation,
            seed=settings.seed,
            progress=lambda done, total: report("guard", done, total, {}),
        )
    return model.save(out / settings.name, name=settings.name, card=dict(card or {}))


def refit_guard(
    bundle: Path, *, data: Path, out: Path | None = None, report: Progress | None = None
) -> Path:
    """See :meth:`medrl.systems.System.refit_guard`; the confidence is fitted anew, too."""
    told = report or (lambda *_: None)
    model, _ = SeedModel.load(bundle)
    settings = model.settings
    cases = read_datalist(data, [channel.name for channel in settings.channels])
    training, validation = (
        load_labelled(
            cases[split],
            channels=settings.channels,
            targets=settings.targets,
            spacing=settings.spacing,
        )
        for split in ("training", "validation")
    )
    guarded = fit_guard(
        model,
        training,
        validation,
        progress=lambda done, total: told("guard", done, total, {}),
    )
    return save_guard(bundle, guarded.guard, guarded.measured(), out=out)
