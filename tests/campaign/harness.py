"""Runs that end where they are told to: at any change to a file, at any moment, on a full disk.

One process imports torch and transformers, and every run is a fork of it: a crash costs a second, not ten.
Changes to files are counted by ``shim.c``, which is loaded before the C library.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

KILLED = 137
RESULTS = ("model.safetensors", "metrics.jsonl", "evaluation.json", "recipe.json", "predictions.npz")


def build_shim(folder: Path) -> Path | None:
    """Compile shim.c; None where there is no compiler or no Linux."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        return None
    library = folder / "shim.so"
    source = Path(__file__).parent / "shim.c"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@dataclass(frozen=True)
class Ended:
    """How the processes of one start ended.

    Attributes:
        codes: exit status of each.
        events: changes to files, of each; 0 for one that was killed.
        log: what they said.
    """

    codes: tuple[int, ...]
    events: tuple[int, ...]
    log: str


class Runner:
    """Starts a run in forks of this process, which has the shim before its C library."""

    def __init__(self, work: Path, photos: Path, tiny: str) -> None:
        self.work, self.photos, self.tiny = work, photos, tiny
        self.shim = ctypes.CDLL(None)
        self.shim.shim_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int]
        self.shim.shim_seen.restype = ctypes.c_long

    def images(self, folder: Path) -> None:
        """Train on photographs over the Trainer: 6 steps, checkpoints after 2, 4 and 6, two of them kept."""
        self._images(folder)

    def refit(self, folder: Path) -> None:
        """Do so, then make the last layer anew and adjust its logits."""
        from longtail import methods

        adjusted = methods.get("crt").replace(adjustment=methods.Rule("logit"))
        self._images(folder, method=adjusted)

    def _images(self, folder: Path, **changes: object) -> None:
        from longtail import recipes
        from longtail.training.finetune import finetune

        given = {
            "size": 32,
            "batch_size": 12,
            "epochs": 2,
            "learning_rate": 0.05,
            "warmup_epochs": 0,
            "seed": 1,
        }
        recipe = recipes.images("photos", self.tiny, **given | changes)
        steps = {"logging_steps": 1, "save_strategy": "steps", "save_steps": 2}
        finetune(recipe, self.photos, folder, workers=0, device="cpu", arguments=steps)

    def memory(self, folder: Path) -> None:
        """Train on digits in memory: 6 epochs, a checkpoint after each second."""
        from longtail import recipes
        from longtail.training import train

        train(recipes.digits(epochs=6, warmup_epochs=0), folder, device="cpu", threads=1, checkpoint_every=2)

    def start(
        self,
        run: Callable[[Path], None],
        folder: Path,
        *,
        processes: int = 1,
        at: int = 0,
        rank: int = 0,
        full: bool = False,
        kill_after: float | None = None,
    ) -> Ended:
        """Run it in forks.

        Args:
            run: `images` or `memory`.
            folder: of the run.
            processes: how many.
            at: the change to a file that ends the process `rank`; 0 for none.
            rank: which process that is.
            full: let the disk be full from that change on, instead.
            kill_after: seconds until a SIGKILL of `rank`.
        """
        port, log = _free_port(), self.work / "log.txt"
        log.write_text("")
        children = {}
        for one in range(processes):
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(reader)
                os.setsid()
                self._child(run, folder, one, processes, port, log, at if one == rank else 0, full, writer)
            os.close(writer)
            children[pid] = (one, reader)
        codes, events = [0] * processes, [0] * processes
        waiting, due = dict(children), None if kill_after is None else time.monotonic() + kill_after
        while waiting:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid in waiting:
                one, reader = waiting.pop(pid)
                codes[one] = os.waitstatus_to_exitcode(status)
                with os.fdopen(reader, "rb") as pipe:
                    events[one] = int(pipe.read() or 0)
                if codes[one]:
                    for other in waiting:  # as torchrun does
                        os.kill(other, signal.SIGTERM if full else signal.SIGKILL)
            elif due is not None and time.monotonic() >= due:
                due = None
                for pid, (one, _) in waiting.items():
                    if one == rank:
                        os.kill(pid, signal.SIGKILL)
            else:
                time.sleep(0.01)
        return Ended(tuple(codes), tuple(events), log.read_text(errors="replace"))

    def _child(self, run, folder, rank, processes, port, log, at, full, writer):  # type: ignore[no-untyped-def]
        code = 1
        try:
            out = os.open(log, os.O_WRONLY | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            if processes > 1:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
                os.environ |= {"LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
                os.environ |= {"MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
            self.shim.shim_arm(os.fsencode(folder), at, int(full))
            run(folder)
            code = 0
        except BaseException as error:
            traceback.print_exc()
            print(f"ended: {type(error).__name__}: {error}", flush=True)
        finally:
            seen = self.shim.shim_seen()
            self.shim.shim_arm(b"", 0, 0)
            os.write(writer, str(seen).encode())
            os._exit(code)


def same_end(folder: Path, whole: Path, *, exact: bool = True) -> str | None:
    """Say in what a run differs from one that nothing interrupted; bit by bit, or as rounding allows.

    On another number of processes sums are taken in another order: losses may then differ by 1e-5 of
    themselves, and weights by 1e-4.
    """
    from safetensors.numpy import load_file

    from longtail.training import verify_run

    if bad := [one.name for one in verify_run(folder) if not one.ok]:
        return f"damaged: {bad}"
    if left := [p.name for p in folder.rglob("*") if p.name.endswith(".tmp") or p.name == ".model"]:
        return f"left behind: {left}"
    if exact:
        names = [n for n in RESULTS if (folder / n).read_bytes() != (whole / n).read_bytes()]
        return f"other bits in {names}" if names else None
    lines = [
        [json.loads(line) for line in (one / "metrics.jsonl").read_text().splitlines()]
        for one in (folder, whole)
    ]
    losses = [[row["loss"] for row in rows] for rows in lines]
    if not np.allclose(*losses, rtol=1e-5, atol=1e-6):
        return f"other losses: {losses}"
    ours, theirs = (load_file(one / "model.safetensors") for one in (folder, whole))
    worst = max(float(np.abs(ours[name] - theirs[name]).max()) for name in theirs)
    return None if ours.keys() == theirs.keys() and worst < 1e-4 else f"weights differ by {worst}"


def last_whole(folder: Path) -> int:
    """Steps of the newest checkpoint of a Trainer run that is whole; 0 for none."""
    from longtail.training import manifest

    found = [0]
    for path in (folder / "checkpoints").glob("checkpoint-*"):
        with contextlib.suppress(ValueError):
            if manifest.check(path):
                found.append(int(path.name.rpartition("-")[2]))
    return max(found)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


TOLD = {
    "kills": "Series of one to four random kills over the Trainer and in memory, one or two processes",
    "crashes": "Crash at a random change to a file, and go on, one or two processes",
    "damaged_finished": "A file of a finished run: bit flipped, page zeroed, cut short or deleted",
    "damaged_checkpoint": "The same, of the newest checkpoint",
    "full_disk": "Disk full from a random change on",
    "read_only": "Folder that cannot be written",
    "vanishing": "Folder taken away in the middle",
    "clock": "Clock set between the writes",
    "two_starts": "Two starts on one folder",
    "train": "`longtail train` killed and started again",
    "compare": "`longtail compare` killed and started again",
    "reproduce": "`longtail reproduce` killed and started again",
    "embed": "`longtail embed` killed and started again",
    "audit": "`longtail audit` killed and started again",
    "dead_worker": "One worker of `longtail compare` killed",
}


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Sum what was tried up to lines of Markdown."""
    lines = ["| Tried | How often | Silent or lost |", "| --- | ---: | ---: |"]
    for what, told in TOLD.items():
        mine = [row for row in rows if row["what"] == what]
        if mine:
            tried, wrong = (sum(row[key] for row in mine) for key in ("tried", "wrong"))
            lines.append(f"| {told} | {tried:,} | {wrong:,} |")
    return lines
