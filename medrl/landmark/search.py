"""A whole search: networks decide, the dynamics move, every agent ends with an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from medrl.landmark.dynamics import LEFT, MOVES, SearchDynamics
from medrl.landmark.network import LandmarkNetwork
from medrl.roi import crop
from medrl.volume.pyramid import Pyramid

#: Called with the agents that have ended and their whole number.
Progress = Callable[[int, int], None]
#: Called with what the agents that moved in one step did; what it raises ends the search.
OnStep = Callable[["StepRecord"], None]


@dataclass(frozen=True, eq=False)
class StepRecord:
    """What the agents that moved in one step did; R <= N of them.

    Attributes:
        agent: (R,) int64.
        position: (R, 3) int64, where they stood, voxels of the finest level.
        level: (R,) int64.
        action: (R,) int64.
        value: (R,) float, the value of that action, in steps of the level.
    """

    agent: Tensor
    position: Tensor
    level: Tensor
    action: Tensor
    value: Tensor


@dataclass(frozen=True, eq=False)
class SearchResult:
    """How N agents ended.

    Attributes:
        answer: (N, 3) float, voxels of the finest level, sub-voxel.
        level: (N,) int64, the level on which each ended (0 unless it left the scan before).
        status: (N,) int64, LOOPED, CAPPED or LEFT.
        log_scale: (N,) float, log of the expected absolute error per axis, steps of that level.
        spread: (N,) float, root mean square distance, in the same steps, between the opinions
            that the answer was averaged from.
        value: (N,) float, best action value at the end, in steps of that level.
        jump: (N,) float, distance between the answers of the two last levels, in voxels of the
            finest.
        records: What they did, in the order of time.
        scan: (N,) int64, which of the M scans each walked in.
        windows: (M,) int64, windows of each scan that went through a network.
    """

    answer: Tensor
    level: Tensor
    status: Tensor
    log_scale: Tensor
    spread: Tensor
    value: Tensor
    jump: Tensor
    records: tuple[StepRecord, ...]
    scan: Tensor
    windows: Tensor

    @property
    def evaluated(self) -> int:
        """Windows that went through a network."""
        return int(self.windows.sum())

    def split(self) -> list[SearchResult]:
        """The result of each scan by itself, on the CPU, its agents counted from 0."""
        scan = self.scan.cpu()
        steps = StepRecord(
            *(torch.cat([getattr(record, f.name) for record in self.records]).cpu()
              for f in fields(StepRecord))
        )  # fmt: skip
        ends = ("answer", "level", "status", "log_scale", "spread", "value", "jump")
        whole = {name: getattr(self, name).cpu() for name in ends}
        parts = []
        for number, windows in enumerate(self.windows.cpu()):
            own = scan == number
            rows = own[steps.agent]
            count_from_0 = own.cumsum(0) - 1
            record = StepRecord(
                count_from_0[steps.agent[rows]],
                *(getattr(steps, f.name)[rows] for f in fields(StepRecord)[1:]),
            )
            parts.append(
                SearchResult(
                    **{name: values[own] for name, values in whole.items()},
                    records=(record,),
                    scan=torch.zeros_like(scan[own]),
                    windows=windows[None],
                )
            )
        return parts


#: Neighbours from which the finest network is asked again, in steps: the corners of a cube.
_PROBES = torch.tensor([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])


class Searcher:
    """Runs batches of agents through the networks of all scales (finest first)."""

    def __init__(
        self,
        networks: Sequence[LandmarkNetwork],
        *,
        window: int,
        strides: Sequence[int],
        max_steps: int = 48,
        margin: int = 16,
        batch: int = 128,
    ) -> None:
        """Keep the networks.

        Args:
            networks: One per level, finest first, in evaluation mode.
            window: Side of the windows.
            strides: Step of each level in voxels of the finest.
            max_steps: Steps allowed on one level.
            margin: How far outside the scan agents may go, voxels of the finest level.
            batch: Most windows evaluated at a time.
        """
        self.networks = list(networks)
        self.window = window
        self.strides = tuple(strides)
        self.max_steps = max_steps
        self.margin = margin
        self.batch = batch
        self.device = next(self.networks[0].parameters()).device

    @torch.inference_mode()
    def run(
        self,
        pyramids: Sequence[Pyramid],
        *,
        scan: Tensor,
        landmark: Tensor,
        start: Tensor,
        level: int | None = None,
        progress: Progress | None = None,
        on_step: OnStep | None = None,
    ) -> SearchResult:
        """Let N agents walk until each has ended.

        Agents of different landmarks that stand in the same place of the same scan share one
        window. Each level's answer is the mean, over the final loop, of where the network sees
        the landmark from there, weighted by how sure it is; the next level starts at it. On the
        finest level the opinions of the answer's eight diagonal neighbours are added.

        Args:
            pyramids: The scans.
            scan: (N,) int64, index into them.
            landmark: (N,) int64, head of the networks.
            start: (N, 3) float, voxels of the finest level.
            level: Level to start on; the coarsest if left out.
            progress: Called after every step.
            on_step: Called at every step with where the agents stand and what they decided.

        Returns:
            Answers and everything that happened on the way.
        """
        count = len(scan)
        shapes = torch.tensor([p.levels[0].shape[1:] for p in pyramids], device=self.device)
        dynamics = SearchDynamics(
            shapes, strides=self.strides, max_steps=self.max_steps, margin=self.margin
        )
        first = dynamics.coarsest if level is None else level
        state = dynamics.reset(scan, start, torch.full((count,), first, device=self.device))
        opinion = torch.zeros((count, self.max_steps + 1, 5), device=self.device)
        answer = state.position.double()
        before = answer.clone()
        summary = torch.zeros((count, 3), device=self.device)
        finished = torch.zeros(count, dtype=torch.bool, device=self.device)
        records: list[StepRecord] = []
        evaluated = torch.zeros(len(pyramids), dtype=torch.int64, device=self.device)

        while not finished.all():
            agent = torch.nonzero(state.walking)[:, 0]
            values, seen, windows = self._ask(
                pyramids, scan[agent], landmark[agent], state.position[agent], state.level[agent]
            )
            evaluated += windows
            value, action = values.max(dim=-1)
            opinion[agent, state.steps[agent], :4] = seen
            opinion[agent, state.steps[agent], 4] = value
            records.append(
                StepRecord(agent, state.position[agent], state.level[agent], action, value)
            )
            if on_step is not None:
                on_step(records[-1])
            actions = torch.zeros(count, dtype=torch.int64, device=self.device)
            actions[agent] = action
            state = dynamics.step(state, actions)

            ended = ~state.walking & ~finished
            if ended.any():
                stride = dynamics.strides[state.level[ended]][:, None].double()
                views = state.visited[ended] + opinion[ended, :, :3] * stride[:, None]
                mask = state.answer_mask()[ended]
                mean, told = _combine(views / stride[:, None], opinion[ended, :, 3], mask)
                before[ended] = answer[ended]
                answer[ended] = mean * stride
                summary[ended, :2] = told.float()
                last = torch.where(mask, opinion[ended, :, 4], -torch.inf).amax(dim=1)
                summary[ended, 2] = last
                onward = ended & (state.level > 0) & (state.status != LEFT)
                finished |= ended & ~onward
                state = dynamics.descend(state, onward, answer)
            if progress is not None:
                progress(int(finished.sum()), count)

        fine = torch.nonzero((state.level == 0) & (state.status != LEFT))[:, 0]
        if len(fine):
            center = answer[fine].round().long()
            around = center[:, None] + _PROBES.to(self.device)
            which = fine.repeat_interleave(len(_PROBES))
            _, seen, windows = self._ask(
                pyramids,
                scan[which],
                landmark[which],
                around.reshape(-1, 3),
                torch.zeros_like(which),
            )
            evaluated += windows
            probes = seen.view(len(fine), len(_PROBES), 4)
            walked = state.visited[fine] + opinion[fine, :, :3]
            views = torch.cat([walked, around + probes[..., :3]], dim=1)
            logs = torch.cat([opinion[fine, :, 3], probes[..., 3]], dim=1)
            mask = torch.cat(
                [state.answer_mask()[fine], torch.ones_like(probes[..., 0], dtype=torch.bool)], 1
            )
            answer[fine], told = _combine(views.double(), logs, mask)
            summary[fine, :2] = told.float()
        return SearchResult(
            answer=answer,
            level=state.level,
            status=state.status,
            log_scale=summary[:, 0],
            spread=summary[:, 1],
            value=summary[:, 2],
            jump=(answer - before).norm(dim=1),
            records=tuple(records),
            scan=scan,
            windows=evaluated,
        )

    def _ask(
        self,
        pyramids: Sequence[Pyramid],
        scan: Tensor,
        landmark: Tensor,
        position: Tensor,
        level: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Action values (R, 6), offset with log scale (R, 4), and each scan's windows (M,)."""
        values = torch.empty((len(scan), len(MOVES)), device=self.device)
        seen = torch.empty((len(scan), 4), device=self.device)
        place = torch.cat([level[:, None], scan[:, None], position], dim=1)
        unique, inverse = torch.unique(place, dim=0, return_inverse=True)
        for lv in unique[:, 0].unique().tolist():
            of_level = torch.nonzero(unique[:, 0] == lv)[:, 0]
            for chunk in of_level.split(self.batch):
                windows = crop(
                    pyramids,
                    unique[chunk, 2:] // self.strides[lv],
                    self.window,
                    level=lv,
                    scan=unique[chunk, 1],
                )
                decision = self.networks[lv](
                    windows.contiguous(memory_format=torch.channels_last_3d)
                )
                # `unique` is sorted by level, so a chunk is a run of whole numbers.
                local = inverse - chunk[0]
                rows = torch.nonzero((local >= 0) & (local < len(chunk)))[:, 0]
                window, head = local[rows], landmark[rows]
                values[rows] = decision.values[window, head].float()
                seen[rows, :3] = decision.offset[window, head].float()
                seen[rows, 3] = decision.log_scale[window, head].float()
        return values, seen, unique[:, 1].bincount(minlength=len(pyramids))


def _combine(views: Tensor, log_scale: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Precision-weighted mean of opinions.

    Args:
        views: (N, T, 3), where each opinion puts the landmark.
        log_scale: (N, T), log of its expected error.
        mask: (N, T) bool, the opinions that count.

    Returns:
        (N, 3) means, and (N, 2): mean log scale, root mean square spread.
    """
    weight = torch.where(mask, torch.exp(-2 * log_scale.double()), 0.0)
    weight = weight / weight.sum(dim=1, keepdim=True)
    mean = (views * weight[..., None]).sum(dim=1)
    scatter = ((views - mean[:, None]).square().sum(dim=-1) * weight).sum(dim=1).sqrt()
    return mean, torch.stack([(log_scale * weight).sum(dim=1), scatter], dim=1)
