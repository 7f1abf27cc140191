"""Any jobs run on any engine: results come back, progress is told, what was killed goes on."""

import contextlib
from pathlib import Path

import pytest
from jobs import Broken, Count, Counting

from medrl.engines import Folders
from medrl.engines.local import LocalEngine
from medrl.errors import MedrlError


@pytest.fixture(params=["local", "ray", "ray without a shared disk"])
def engine(request, monkeypatch):
    if request.param == "local":
        return LocalEngine(2)
    pytest.importorskip("ray")
    from medrl.engines import ray as ray_module

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "stubs"), prepend=":")
    if "without" in request.param:

        @contextlib.contextmanager
        def unseen(root):
            yield root / "elsewhere" / "token"

        monkeypatch.setattr(ray_module, "_token", unseen)
        monkeypatch.setattr(ray_module, "stamps", lambda job: [("/no/such/file", 1, 1)])
    return ray_module.RayEngine(2)


def test_results_and_progress_come_back(engine, tmp_path):
    jobs, ends, progress = [], {}, []
    for number in range(1, 5):
        file = tmp_path / f"{number}.txt"
        file.write_text(str(number) if number != 3 else "no number")
        jobs.append(Count(f"jobs/{number}", file))
    engine.run(
        Counting(),
        jobs,
        Folders(tmp_path / "out"),
        on_end=lambda outcome: ends.update({outcome.name: outcome}),
        on_progress=progress.append,
    )
    assert "ValueError" in ends.pop("jobs/3").error
    for number in (1, 2, 4):
        name = f"jobs/{number}"
        assert ends[name].error is None
        assert ends[name].result == {"began": 0, "counted": number}
        assert (tmp_path / "out" / name / "result").read_text() == str(number)
        told = [one for one in progress if one.job == name]
        assert [one.done for one in told] == list(range(1, number + 1))
        assert {(one.stage, one.total) for one in told} == {("counting", number)}
        assert told[-1].values == {"square": number**2}


def test_a_killed_job_goes_on_from_its_checkpoint(tmp_path):
    file = tmp_path / "ten.txt"
    file.write_text("10")
    ends = {}
    LocalEngine(1).run(
        Counting(),
        [Count("a", file), Count("b", file, dies_at=6)],
        Folders(tmp_path / "out"),
        on_end=lambda outcome: ends.update({outcome.name: outcome.result}),
    )
    # The worker may die before it has told that "a" is done, which is then found done.
    assert ends["a"]["counted"] == 10
    assert ends["b"] == {"began": 6, "counted": 10}


def test_a_task_that_cannot_be_opened_ends_the_run(tmp_path):
    with pytest.raises(MedrlError, match="no such model"):
        LocalEngine(1).run(
            Broken(), [Count("a", tmp_path)], Folders(tmp_path / "out"), on_end=print
        )
