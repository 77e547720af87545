"""Hours of what happens to runs: crashes, kills, clocks, full disks, damaged files, two starts at once.

    make campaign HOURS=1

A line of JSON for each thing that went wrong, and at the end how often each was tried. With --out a line for
each kind, with what it was tried with: make campaign OUT=results/campaign.jsonl TIMES=10 ONLY=kills
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from crash import crash, prepare
from harness import Runner, build_shim, same_end


class Campaign:
    """What is tried, each a method that returns what went wrong, or None."""

    def __init__(self, runner: Runner, draw: random.Random) -> None:
        self.runner, self.draw, self.work = runner, draw, runner.work
        self.seconds: dict[str, float] = {}  # of commands that nothing interrupts
        self.whole: dict[str, Path] = {}
        self.stopped: dict[str, Path] = {}
        for kind in ("images", "memory"):
            self.whole[kind] = self._fresh(f"{kind}-reference")
            ended = runner.start(getattr(runner, kind), self.whole[kind])
            assert ended.codes == (0,), ended.log
            self.stopped[kind] = self._fresh(f"{kind}-stopped")
            shutil.copytree(self.whole[kind], self.stopped[kind])
            (self.stopped[kind] / "evaluation.json").unlink()
        self.events = ended.events[0]

    def _fresh(self, name: str) -> Path:
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def _end(self, folder: Path, kind: str, *, exact: bool = True) -> str | None:
        ended = self.runner.start(getattr(self.runner, kind), folder)
        return ended.log[-600:] if any(ended.codes) else same_end(folder, self.whole[kind], exact=exact)

    def kills(self) -> str | None:
        """Kill a run at random moments, of one process or two, up to four times; then let it end."""
        kind = self.draw.choice(("images", "images", "memory"))
        folder, both = self._fresh("killed"), False
        for _ in range(self.draw.randint(1, 4)):
            processes = self.draw.choice((1, 1, 2)) if kind == "images" else 1
            both |= processes == 2
            self.runner.start(
                getattr(self.runner, kind),
                folder,
                processes=processes,
                rank=self.draw.randrange(processes),
                kill_after=self.draw.uniform(0.0, 2.5),
            )
        return self._end(folder, kind, exact=not both)

    def damaged_finished(self) -> str | None:
        """Damage a file of a finished run: it must be refused by name, never read."""
        from longtail.training import load_run, verify_run

        kind = self.draw.choice(("images", "memory"))
        folder = self._fresh("damaged")
        shutil.copytree(self.whole[kind], folder, ignore=shutil.ignore_patterns("checkpoints"))
        name = self.draw.choice(sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")))
        how = self._damage(folder / name)
        if how is None:
            return None
        bad = {one.name for one in verify_run(folder) if not one.ok}
        if name not in bad and (folder / "evaluation.json").exists():
            return f"{how} of {name} was not found by verify: {bad}"
        try:
            load_run(folder)
        except ValueError as error:
            text = str(error)
            return None if "\n" not in text and folder.name in text else f"{how} of {name}: {text}"
        except Exception as error:
            return f"{how} of {name}: {type(error).__name__}: {error}"
        return f"{how} of {name} was read silently"

    def damaged_checkpoint(self) -> str | None:
        """Damage a file of the newest checkpoint: the one before must be taken."""
        from longtail.training import checkpoint
        from longtail.training.finetune import _last_checkpoint
        from longtail.training.recipe import Recipe

        kind = self.draw.choice(("images", "images", "memory"))
        folder = self._fresh("damaged")
        shutil.copytree(self.stopped[kind], folder)
        place = folder / "checkpoints"
        newest = max(place.glob("checkpoint-*"), key=lambda p: int(p.stem.rpartition("-")[2]))
        file = self.draw.choice(sorted(newest.iterdir())) if newest.is_dir() else newest
        how = self._damage(file)
        if how is None:
            return None
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            if kind == "images":
                found = _last_checkpoint(place, sealed=True)
                taken = None if found is None else Path(found)
            else:
                owner = Recipe.from_json((folder / "recipe.json").read_bytes()).hash
                read = checkpoint.load_latest(place, owner)
                taken = None if read is None else read.path
        if taken is None or taken.name == newest.name:
            return f"{how} of {newest.name}/{file.name}: {taken} was taken"
        if how != "deleted" or kind == "images":
            texts = [str(one.message) for one in said]
            if len(texts) != 1 or "\n" in texts[0] or newest.name not in texts[0]:
                return f"{how} of {newest.name}/{file.name} was said as {texts}"
        return self._end(folder, kind) if self.draw.random() < 0.02 else None

    def _damage(self, file: Path) -> str | None:
        data = bytearray(file.read_bytes())
        how = self.draw.choice(("flipped bit", "flipped bit", "zeroed page", "cut short", "deleted"))
        before = bytes(data)
        if how == "flipped bit":
            data[self.draw.randrange(len(data))] ^= 1 << self.draw.randrange(8)
        elif how == "zeroed page":
            start = self.draw.randrange(0, len(data), 4096)
            data[start : start + 4096] = bytes(len(data[start : start + 4096]))
        elif how == "cut short":
            del data[self.draw.randrange(len(data)) :]
        else:
            file.unlink()
            return how
        file.write_bytes(data)
        return how if bytes(data) != before else None

    def clock(self) -> str | None:
        """Set the clock back and forth between the writes of a run."""
        kind = self.draw.choice(("images", "memory"))
        folder = self._fresh("clock")
        shutil.copytree(self.stopped[kind], folder)
        for path in folder.rglob("*"):
            moment = self.draw.uniform(0, 4e9)
            os.utime(path, (moment, moment))
        return self._end(folder, kind)

    def crashes(self) -> str | None:
        """Crash at a random change to a file, on one process or two, and go on on one or two."""
        kind = self.draw.choice(("images", "memory"))
        before, after = self.draw.choice(((1, 1), (1, 2), (2, 1), (2, 2))) if kind == "images" else (1, 1)
        return self._crash(kind, before=before, after=after)

    def full_disk(self) -> str | None:
        """Let the disk be full from a random change on, free it, and go on."""
        return self._crash(self.draw.choice(("images", "memory")), full=True)

    def _crash(self, kind: str, **options: bool | int) -> str | None:
        for line in crash(self.runner, kind, self.draw.randint(1, 3), **options):  # type: ignore[arg-type]
            if line["wrong"]:
                return json.dumps(line)
        return None

    def two_starts(self) -> str | None:
        """Start a run twice on one folder: one of them trains, the other is told so."""
        kind = self.draw.choice(("images", "memory"))
        folder = self._fresh("twice")
        other = os.fork()
        if other == 0:
            os.setsid()
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 1)
                os.dup2(nothing.fileno(), 2)
            with contextlib.suppress(BaseException):
                getattr(self.runner, kind)(folder)
            os._exit(0)
        ended = self.runner.start(getattr(self.runner, kind), folder)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(other, 0)
        if any(ended.codes) and "in use by another run" not in ended.log:
            return ended.log[-600:]
        return self._end(folder, kind)

    def vanishing(self) -> str | None:
        """Take the folder away while the run writes into it: it ends with an error, and starts anew."""
        kind = self.draw.choice(("images", "memory"))
        folder = self._fresh("vanishing")
        taker = os.fork()
        if taker == 0:
            time.sleep(self.draw.uniform(0.1, 1.5))
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(0)
        ended = self.runner.start(getattr(self.runner, kind), folder)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(taker, 0)
        if not any(ended.codes) and folder.exists() and (folder / "evaluation.json").exists():
            return None  # it had ended before
        shutil.rmtree(folder, ignore_errors=True)
        return self._end(folder, kind)

    def read_only(self) -> str | None:
        """Let a run write nowhere into its folder: one line, nothing changed; then let it end."""
        kind = self.draw.choice(("images", "memory"))
        folder = self._fresh("read-only")
        shutil.copytree(self.stopped[kind], folder)
        before = sorted(p.relative_to(folder) for p in folder.rglob("*"))
        folder.chmod(0o555)
        (folder / "checkpoints").chmod(0o555)

        def run(place: Path) -> None:
            if os.geteuid() == 0:  # whom no mode keeps out
                self.work.chmod(0o755)
                os.seteuid(65534)
            getattr(self.runner, kind)(place)

        ended = self.runner.start(run, folder)
        folder.chmod(0o755)
        (folder / "checkpoints").chmod(0o755)
        last = ended.log.strip().splitlines()[-1] if ended.log.strip() else ""
        if ended.codes == (0,) or not last.startswith("ended: RunFolderError"):
            return f"ended with {ended.codes}: {last}"
        if before != sorted(p.relative_to(folder) for p in folder.rglob("*")):
            return "something was written"
        return self._end(folder, kind)

    # ---- commands, each killed at a random moment and started again

    def train(self) -> str | None:
        """Kill ``longtail train`` and start it again."""
        options = ["train", "digits", "--epochs", "40", "--seed", "3"]
        return self._killed("train", lambda out: [*options, "--out", out], "model.safetensors")

    def compare(self) -> str | None:
        """Kill ``longtail compare`` and start it again."""
        return self._killed("compare", lambda out: [*COMPARE, "--out", out], "compare.csv")

    def reproduce(self) -> str | None:
        """Kill ``longtail reproduce`` and start it again."""
        options = ["reproduce", "beta", "--domain", "digits", "--imbalance", "100", "--loss", "softmax"]
        return self._killed("reproduce", lambda out: [*options, "--results", f"{out}/beta.csv"], None)

    def embed(self) -> str | None:
        """Kill ``longtail embed`` and start it again."""
        trained = str(self.runner.work / "trained")
        options = ["embed", str(self.runner.photos), "--model", trained, "--size", "32", "--batch-size", "2"]
        cache = ["--cache", str(self.work / "cache")]
        shutil.rmtree(self.work / "cache", ignore_errors=True)
        return self._killed("embed", lambda out: [*options, *cache, "--out", f"{out}/x.npz"], "x.npz")

    def audit(self) -> str | None:
        """Kill ``longtail audit`` and start it again."""
        options = ["audit", str(self.runner.photos), "--test", str(self.runner.photos / "val"), "--force"]
        return self._killed(
            "audit", lambda out: [*options[:2], "--force", "--out", f"{out}/a.html"], "a.html"
        )

    def dead_worker(self) -> str | None:
        """Kill one worker of ``longtail compare``: its run is repeated, the others go on."""
        import psutil

        whole = self._whole("compare", lambda out: [*COMPARE, "--out", out])
        folder = self._fresh("dead-worker")
        job = self._start([*COMPARE, "--out", str(folder)])
        workers: list[psutil.Process] = []
        while job.poll() is None and not workers:
            children = psutil.Process(job.pid).children()
            workers = [
                c for c in children if "loky" in " ".join(c.cmdline()) and "--process-name" in c.cmdline()
            ]
            time.sleep(0.05)
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.wait(self.draw.uniform(0.5, 8))
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            self.draw.choice(workers).kill()
        said = job.communicate()[1].decode()
        if job.returncode != 0:
            return f"ended with {job.returncode}: {said[-600:]}"
        same = _same(folder / "compare.csv", whole / "compare.csv")
        return None if same else "another table at the end"

    def _start(self, command: list[str], place: Path | None = None) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        line = [sys.executable, "-m", "longtail", *command]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "env": environment}
        quiet["cwd"] = place or self.work
        return subprocess.Popen(line, start_new_session=True, **quiet)  # type: ignore[call-overload]

    def _whole(self, name: str, command: Callable[[str], list[str]]) -> Path:
        """Run a command once without a kill; how long it takes bounds the moments of the kills."""
        folder = self.work / f"whole-{name}"
        if name not in self.seconds:
            self._fresh(folder.name).mkdir()
            started = time.monotonic()
            job = self._start(command(str(folder)), folder)
            said = job.communicate()[1].decode()
            assert job.returncode == 0, said[-600:]
            self.seconds[name] = time.monotonic() - started
        return folder

    def _killed(self, name: str, command: Callable[[str], list[str]], result: str | None) -> str | None:
        whole = self._whole(name, command)
        folder = self._fresh(f"killed-{name}")
        folder.mkdir()
        job = self._start(command(str(folder)), folder)
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.wait(self.draw.uniform(0.5, self.seconds[name]))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.communicate()
        again = self._start(command(str(folder)), folder)
        said = again.communicate()[1].decode()
        if again.returncode:
            return said[-600:]
        if result is not None and not _same(folder / result, whole / result):
            return f"another {result} at the end"
        return None


COMPARE = ["compare", "digits", "--epochs", "6", "--seeds", "2", "--loss", "softmax", "--jobs", "2"]
COMPARE += ["--scheme", "none", "--scheme", "effective"]


def _same(one: Path, other: Path) -> bool:
    """Whether two results say the same; seconds, dates and folders may differ."""
    if one.suffix == ".npz":
        with np.load(one) as ours, np.load(other) as theirs:
            return all(np.array_equal(ours[name], theirs[name]) for name in ("X", "y"))
    if one.suffix == ".csv":
        rows = []
        for path in (one, other):
            with path.open(newline="") as file:
                kept = [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]
            rows.append(kept)
        return rows[0] == rows[1]
    if one.suffix == ".html":
        return one.stat().st_size == other.stat().st_size
    return one.read_bytes() == other.read_bytes()


def provenance() -> dict[str, object]:
    """With what it was tried."""
    import torch

    from longtail.training.folder import environment

    about = environment(torch.device("cpu"))
    names = ("longtail", "python", "torch", "numpy", "commit", "device", "machine", "platform")
    told = {name: about[name] for name in names if name in about}
    return told | {"cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d")}


MIX = {
    "damaged_finished": 60,
    "damaged_checkpoint": 60,
    "kills": 8,
    "crashes": 3,
    "full_disk": 2,
    "clock": 2,
    "two_starts": 2,
    "vanishing": 2,
    "read_only": 2,
    "train": 1,
    "compare": 1,
    "reproduce": 1,
    "embed": 1,
    "audit": 1,
    "dead_worker": 1,
}


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="add a line of JSON for each kind to this file")
    parser.add_argument("--only", action="append", choices=[*MIX])
    parser.add_argument("--times", type=int, help="try each kind so often, in turn, within the hours")
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="longtail-campaign-"))
    if "shim.so" not in os.environ.get("LD_PRELOAD", ""):
        shim = build_shim(work)
        if shim is None:
            sys.exit("the campaign needs Linux and a C compiler")
        os.execve(
            sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"LD_PRELOAD": str(shim)}
        )
    draw, end = random.Random(given.seed), time.monotonic() + 3600 * given.hours
    campaign = Campaign(prepare(work, ("images", "memory")), draw)
    told = provenance()
    mix = {name: share for name, share in MIX.items() if not given.only or name in given.only}
    rows = {name: {"tried": 0, "wrong": 0, "seconds": 0.0, "examples": []} for name in mix}

    def one(name: str) -> None:
        row, started = rows[name], time.monotonic()
        found = getattr(campaign, name)()
        row["tried"] += 1
        row["seconds"] += time.monotonic() - started
        if found:
            row["wrong"] += 1
            row["examples"] = [*row["examples"], found][:3]
            print(json.dumps({"what": name, "number": row["tried"], "wrong": found}), flush=True)

    def keep(names: Iterable[str]) -> None:
        for name in names:
            row = rows[name]
            if row["tried"] and given.out:
                line = {"what": name, **row, "seconds": round(row["seconds"]), "seed": given.seed, **told}
                with given.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            print(f"{name}: {row['tried']} tried, {row['wrong']} wrong", flush=True)

    if given.times is None:
        while time.monotonic() < end:
            one(*draw.choices([*mix], [*mix.values()]))
        keep(mix)
    else:
        for name in mix:
            for _ in range(given.times):
                if time.monotonic() < end:
                    one(name)
            keep([name])
    shutil.rmtree(work, ignore_errors=True)
    sys.exit(any(row["wrong"] for row in rows.values()))


if __name__ == "__main__":
    main()
