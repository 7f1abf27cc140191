"""A trained seed agent with the segmenter that it works with, and how it is stored in a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medrl.agents import Decision, Space
from medrl.data.targets import Target
from medrl.errors import MedrlError
from medrl.evaluation import LogisticRegression
from medrl.nets.familiarity import PREFIX, Familiarity
from medrl.seednet.confidence import PREFIX as CONFIDENCE
from medrl.seednet.confidence import confidence_of, confidence_tensors
from medrl.seednet.dynamics import SeedDynamics, SeedState, Windows
from medrl.seednet.network import STRIDE, VIEW_CHANNELS, WIDTHS, Features, SeedNetwork, Widths
from medrl.seednet.view import agent_view, nearness
from medrl.volume.channels import Channel
from medrl.walker.edges import feature_edges
from medrl.walker.segmenter import RandomWalker, System

if TYPE_CHECKING:
    from medrl.bundles import Guard


@dataclass(frozen=True)
class ModelSettings:
    """Everything that must be known to run the network.

    Attributes:
        channels: Its images; any but one may be missing.
        targets: Kinds of object that it can be asked for; the first unless another is named.
        spacing: Voxel size that it works at, mm.
        half_width: Half the side of the window around the first seed, voxels.
        widths: Feature channels at each resolution.
        edges: Length of the embedding that edge weights come from.
        sharpness: Power that the learned edge weights, probabilities that nothing ends between two
            voxels, are raised to.
        prior_weight: Weight of the prior in the random walker.
        seed_radius: Radius of the ball painted around an agent's seed, voxels.
        exclusion_radius: How far an agent keeps from user seeds of the other label, voxels.
        max_seeds: Seeds that an agent may place between two of the user's.
        stop_threshold: The agent stops when it expects no seed to raise the Dice overlap by more.
    """

    channels: tuple[Channel, ...] = (Channel("MR"),)
    targets: tuple[Target, ...] = (Target("object"),)
    spacing: float = 1.0
    half_width: int = 32
    widths: Widths = WIDTHS
    edges: int = 4
    sharpness: float = 10.0
    prior_weight: float = 0.3
    seed_radius: float = 1.0
    exclusion_radius: float = 3.0
    max_seeds: int = 10
    stop_threshold: float = 0.0

    def build_network(self) -> SeedNetwork:
        """A network of these settings, untrained."""
        return SeedNetwork(
            channels=len(self.channels),
            targets=len(self.targets),
            widths=self.widths,
            edges=self.edges,
        )

    def build_dynamics(self) -> AgentDynamics:
        """How agents place seeds under these settings."""
        return AgentDynamics(
            RandomWalker(prior_weight=self.prior_weight),
            stride=STRIDE,
            max_seeds=self.max_seeds,
            seed_radius=self.seed_radius,
            exclusion_radius=self.exclusion_radius,
        )

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> ModelSettings:
        """Read what :func:`dataclasses.asdict` wrote, if it is whole."""
        from medrl.bundles import settings_from

        settings = settings_from(ModelSettings, values)
        if not settings.channels or not settings.targets:
            raise MedrlError("the model's settings name no channel or no target")
        return settings


@dataclass(frozen=True, eq=False)
class EncodedWindows:
    """What a model has made of N windows, once for all seeds that follow.

    Attributes:
        features: The encoder's view.
        system: The segmenter's, from the learned edges.
        target: (N,) int64.
    """

    features: Features
    system: System
    target: Tensor

    def select(self, rows: Tensor) -> EncodedWindows:
        """Those of some of the windows, (M,) int64 or (N,) bool."""
        features = self.features.select(rows)
        return EncodedWindows(features, self.system.select(rows), self.target[rows])


@dataclass(frozen=True, eq=False)
class SeedModel:
    """Network and dynamics.

    Attributes:
        settings: How to run it.
        network: In evaluation mode.
        guard: What the training scans were like; None if nobody has measured them.
        familiarity: What the encoder saw in training in right answers and around them; None
            likewise.
        confidence: Probability that an answer is right; None before calibration.
    """

    settings: ModelSettings
    network: SeedNetwork
    guard: Guard | None = None
    familiarity: Familiarity | None = None
    confidence: LogisticRegression | None = None
    dynamics: AgentDynamics = field(init=False)

    def __post_init__(self) -> None:
        """Build the dynamics."""
        object.__setattr__(self, "dynamics", self.settings.build_dynamics())

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        weights = next(self.network.parameters(), None)
        return torch.device("cpu") if weights is None else weights.device

    def target_index(self, name: str | None) -> int:
        """Number of a target; the first if no name is given."""
        names = [target.name for target in self.settings.targets]
        if name is None:
            return 0
        if name not in names:
            raise MedrlError(f"the model has no target {name!r}; it has {', '.join(names)}")
        return names.index(name)

    @torch.no_grad()
    def encode(self, image: Tensor, target: Tensor) -> EncodedWindows:
        """Encode windows (N, C, I, J, K), normalised, for targets (N,)."""
        features = self.network.encode(image)
        embedding = self.network.edge_embedding(features, target)
        edges = feature_edges(embedding * self.settings.sharpness**0.5)
        return EncodedWindows(features, self.dynamics.segmenter.prepare(edges), target)

    @torch.no_grad()
    def prior(self, encoded: EncodedWindows, seeds: Tensor) -> Tensor:
        """Probability (N, I, J, K) of the target given the user's seeds (N, I, J, K) int8."""
        logits = self.network.prior(encoded.features, nearness(seeds), encoded.target)
        return logits.sigmoid()

    @torch.no_grad()
    def values(self, encoded: EncodedWindows, dynamics: AgentDynamics, state: SeedState) -> Tensor:
        """Expected gain in Dice (N, A) of each action; -inf where it is not allowed."""
        own = encoded.select(state.window)
        view = dynamics.observe(state)["view"]
        values = self.network.values(own.features, view, own.target) / GAIN_UNIT
        values[:, -1] = self.settings.stop_threshold
        return values.masked_fill(~dynamics.allowed(state), -torch.inf)

    def on(self, encoded: EncodedWindows, prior: Tensor) -> AgentDynamics:
        """The dynamics of agents in N windows with their priors (N, I, J, K)."""
        return self.dynamics.on(Windows(encoded.system, prior))

    def save(self, folder: Path, *, name: str, card: Mapping[str, Any]) -> Path:
        """Write the model as a bundle; its card is for users: data, licence and limits."""
        from medrl.bundles import network_tensors, new_manifest, save

        settings = asdict(self.settings)
        manifest = new_manifest(
            name=name, task="seednet", settings=settings, card=card, guard=self.guard
        )
        return save(folder, {**network_tensors(self.network), **self.measured()}, manifest)

    def measured(self) -> dict[str, Tensor]:
        """What was measured beside the network, as a bundle stores it."""
        seen = {} if self.familiarity is None else self.familiarity.tensors()
        return {**seen, **confidence_tensors(self.confidence)}

    @staticmethod
    def load(bundle: Path, *, device: str = "cpu") -> tuple[SeedModel, dict[str, Any]]:
        """Load a bundle folder: the model, fused for inference, and its manifest.

        Raises:
            MedrlError: If it is not a seed bundle of this version, or damaged.
        """
        from medrl.bundles import assemble, damaged, guard_of, read_model

        manifest, tensors = read_model(bundle, task="seednet")
        settings = ModelSettings.from_json(manifest["settings"])
        with damaged("the model's familiarity or confidence is damaged"):
            familiarity, confidence = Familiarity.from_tensors(tensors), confidence_of(tensors)
        measured = {PREFIX, CONFIDENCE}
        own = {n: tensor for n, tensor in tensors.items() if n.split(".")[0] + "." not in measured}
        network = assemble(settings.build_network, own, source="the model").fuse().to(device)
        guard = guard_of(manifest)
        return SeedModel(settings, network, guard, familiarity, confidence), dict(manifest)


class SeedPolicy:
    """Places the seed that the model expects most of; stops where that is too little."""

    def __init__(
        self, model: SeedModel, encoded: EncodedWindows, *, stop_threshold: float | None = None
    ) -> None:
        """Decide in the windows that the dynamics are on.

        A stop threshold counts instead of the model's; minus infinity uses up all seeds.
        """
        self._model = model
        self._encoded = encoded
        self._threshold = stop_threshold

    def __call__(self, dynamics: Any, state: Any, memory: Tensor | None) -> Decision:
        """Decide; the value is the expected gain in Dice of the best seed."""
        values = self._model.values(self._encoded, dynamics, state)
        if self._threshold is not None:
            values[:, -1] = self._threshold
        return Decision(values.argmax(dim=1), values[:, :-1].amax(dim=1))


class AgentDynamics(SeedDynamics):
    """The dynamics of a model's agents, who see how their own work stands.

    That is ``view`` (N, 7, i, j, k), see :func:`medrl.seednet.view.agent_view`; what the encoder
    has made of the image does not change.
    """

    def fit(self, shape: Sequence[int]) -> None:
        """Say what agents can do and see in windows of shape (..., I, J, K)."""
        self.action_space = Space.choice(self.actions(shape))
        view = Space((VIEW_CHANNELS, *self.grid(shape)), low=0.0, high=1.0)
        self.observation_spaces = {"view": view}

    def observe(self, state: SeedState) -> dict[str, Tensor]:
        """What agents see."""
        prior = self.windows.prior
        assert prior is not None
        return {"view": agent_view(state, prior[state.window], max_seeds=self.max_seeds)}


#: The network counts gains in per cent of Dice, numbers near 1.
GAIN_UNIT = 100.0
