"""What an agent is: rows of state, dynamics that advance them, policies, one rollout."""

from medrl.agents.dynamics import ACTIVE, DROPPED, Dynamics, Places, Space, State
from medrl.agents.policy import Decision, EpsilonGreedy, Greedy, LookAhead, Policy, Sampled
from medrl.agents.recording import Recorder
from medrl.agents.rollout import Rollout, Transition, rollout
from medrl.agents.rows import Rows
from medrl.agents.task import Task

__all__ = [
    "ACTIVE",
    "DROPPED",
    "Decision",
    "Dynamics",
    "EpsilonGreedy",
    "Greedy",
    "LookAhead",
    "Places",
    "Policy",
    "Recorder",
    "Rollout",
    "Rows",
    "Sampled",
    "Space",
    "State",
    "Task",
    "Transition",
    "rollout",
]
