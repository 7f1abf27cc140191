"""A process that answers requests with one edition of medrl: a JSON object a line, in and out.

``python worker.py before`` uses ``before.py``, and the medrl that PYTHONPATH leads to. A request
is ``{"call": NAME, ...}`` with the arguments of a function of that module, or ``{"call": "train",
"name": ..., "steps": ..., "data": ...}`` for steps of one of its learners, which goes on from one
request to the next. The answer is what the function returns, with ``cpu_seconds`` that it took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial
from importlib import import_module
from typing import Any

import torch

_LEARNERS: dict[str, Any] = {}


def train(edition: Any, *, name: str, steps: int, data: dict[str, Any]) -> dict[str, Any]:
    """Some steps of a learner."""
    if name not in _LEARNERS:
        torch.manual_seed(0)
        _LEARNERS[name] = edition.learner(name, data)
    for _ in range(steps):
        _LEARNERS[name].train_step()
    return {}


def main() -> None:
    """Answer until there are no more requests."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What libraries print is not an answer.
    torch.set_num_threads(1)
    edition = import_module(sys.argv[1])
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        call = request.pop("call")
        function = partial(train, edition) if call == "train" else getattr(edition, call)
        start = time.process_time()
        answer = {**function(**request), "cpu_seconds": time.process_time() - start}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
