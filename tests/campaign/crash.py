"""Crash a run at its changes to files, go on from there, and compare the end; a line of JSON for each point.

LD_PRELOAD=shim.so python tests/campaign/crash.py WORK --kind images --points 12
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from harness import KILLED, Runner, last_whole, same_end

from folders import write_photos, write_tiny, write_trained


def prepare(work: Path, kinds: Sequence[str]) -> Runner:
    """Write what the runs need, once, and import what they import before any of them is forked."""
    import longtail.training.finetune
    import longtail.training.loop  # noqa: F401

    work.mkdir(parents=True, exist_ok=True)
    if not (work / "photos").exists():
        write_photos(work / "photos", counts=(18, 12, 8))
        write_tiny(work / "tiny")
        write_trained(work / "trained")
    runner = Runner(work, work / "photos", str(work / "tiny"))
    shutil.rmtree(work / "warm", ignore_errors=True)
    for kind in kinds:  # what is imported on first use is imported here, once
        getattr(runner, kind)(work / "warm" / kind)
    if {"images", "refit"} & {*kinds}:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
    return runner


def crash(
    runner: Runner,
    kind: str,
    points: int | None,
    *,
    before: int = 1,
    after: int = 1,
    full: bool = False,
    first: int = 1,
) -> Iterator[dict[str, object]]:
    """Crash at some or all points of a run on `before` processes, and go on on `after`.

    Args:
        runner: starts the runs.
        kind: "images" | "refit" | "memory".
        points: how many, evenly spread; None for all.
        before: processes that the crash ends; each point is tried in the first and in the last of them.
        after: processes that go on.
        full: the disk is full from that point on, instead.
        first: the point to begin with.

    Yields:
        A point, and what went wrong there, or None.
    """
    run, work = getattr(runner, kind), runner.work
    whole = work / f"{kind}-whole"
    shutil.rmtree(whole, ignore_errors=True)
    ended = runner.start(run, whole)
    assert ended.codes == (0,), ended.log
    counted = work / "counted"
    for rank in sorted({0, before - 1}):
        shutil.rmtree(counted, ignore_errors=True)
        ended = runner.start(run, counted, processes=before)
        assert not any(ended.codes), ended.log
        events = ended.events[rank]
        step = 1.0 if points is None else max(1.0, events / points)
        for i in range(events if points is None else min(points, events)):
            at = 1 + int(i * step)
            if at < first:
                continue
            folder = work / "crashed"
            shutil.rmtree(folder, ignore_errors=True)
            ended = runner.start(run, folder, processes=before, at=at, rank=rank, full=full)
            line = {"kind": kind, "at": at, "of": events, "rank": rank, "before": before, "after": after}
            wrong, step_before = None, last_whole(folder)
            if not full and ended.codes[rank] not in (KILLED, 0):
                wrong = f"ended with {ended.codes}: {ended.log[-400:]}"
            if full and "Traceback" in ended.log and "RunFolderError" not in ended.log.splitlines()[-1]:
                wrong = f"a full disk is said so: {ended.log.splitlines()[-1]}"
            known = _seconds(folder)
            if known > 0 and kind != "memory" and step_before == 0:
                wrong = "a finished checkpoint was lost"
            if wrong is None:
                again = runner.start(run, folder, processes=after)
                exact = before == after == 1
                wrong = again.log[-400:] if any(again.codes) else same_end(folder, whole, exact=exact)
            yield line | {"steps": step_before, "wrong": wrong}


def _seconds(folder: Path) -> float:
    try:
        return float(json.loads((folder / "environment.json").read_bytes()).get("seconds", 0))
    except (OSError, ValueError):
        return 0.0


def main() -> None:
    """Print a line of JSON for each point."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--kind", default="images", choices=("images", "refit", "memory"))
    parser.add_argument("--points", type=int)
    parser.add_argument("--before", type=int, default=1)
    parser.add_argument("--after", type=int, default=1)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--full", action="store_true")
    given = parser.parse_args()
    runner = prepare(given.work, [given.kind])
    for line in crash(
        runner,
        given.kind,
        given.points,
        before=given.before,
        after=given.after,
        full=given.full,
        first=given.first,
    ):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
