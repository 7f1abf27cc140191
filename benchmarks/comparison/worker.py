"""A process that answers requests with one edition of medrl: a JSON object a line, in and out.

``python worker.py before`` uses ``before.py``, and the medrl that PYTHONPATH leads to. A request
is ``{"call": NAME, ...}`` with the arguments of a function of that module; the answer is what it
returns, with ``cpu_seconds`` that it took. Arrays are written to the file named by ``into``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from typing import Any


def main() -> None:
    """Answer until there are no more requests."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What libraries print is not an answer.
    edition = import_module(sys.argv[1])
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        function = getattr(edition, request.pop("call"))
        start = time.process_time()
        answer = {**function(**request), "cpu_seconds": time.process_time() - start}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
