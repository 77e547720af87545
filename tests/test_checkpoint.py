import json
import math
import sys
import time

import pytest
import torch
from safetensors.torch import save_file

from longtail.training.checkpoint import load_latest, save
from longtail.training.files import InUseError, RunFolderError, locked

OWNER, OTHER = "a" * 64, "b" * 64


def tensors(value=1.0):
    return {
        "weight": torch.full((4, 3, 2, 2), value).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(value),
        "steps": torch.tensor([2**40], dtype=torch.int64),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 3),
    }


def write(folder, *epochs):
    return [save(folder, tensors(e), epoch=e, recipe_hash=OWNER, extra={"history": [e]}) for e in epochs]


def test_round_trip_and_the_newest_two_are_kept(tmp_path):
    write(tmp_path, 1, 2, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-000002.safetensors",
        "checkpoint-000003.safetensors",
    ]
    found = load_latest(tmp_path, OWNER)
    assert (found.epoch, found.extra) == (3, {"history": [3]})
    for name, expected in tensors(3).items():
        assert found.tensors[name].dtype == expected.dtype
        assert torch.equal(found.tensors[name], expected)


def test_a_new_or_missing_folder_has_no_checkpoint(tmp_path):
    assert load_latest(tmp_path, OWNER) is None
    assert load_latest(tmp_path / "none", OWNER) is None


def truncate(data):
    return data[: len(data) // 2]


def flip_last(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def flip_history(data):
    return data.replace(rb"\"history\": [2]", rb"\"history\": [3]")


def flip_key(data):
    return data.replace(b'"longtail"', b'"longtbil"')


@pytest.mark.parametrize(
    "damage", [truncate, flip_last, flip_history, flip_key, lambda _: b"", lambda _: b"no"]
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, damage):
    newest = write(tmp_path, 1, 2)[-1]
    before = newest.read_bytes()
    newest.write_bytes(damage(before))
    assert newest.read_bytes() != before
    with pytest.warns(UserWarning, match=r"checkpoint-000002\.safetensors cannot be used"):
        found = load_latest(tmp_path, OWNER)
    assert found.epoch == 1


def test_every_bit_counts(tmp_path):
    write(tmp_path, 1, 2)
    path = tmp_path / "checkpoint-000002.safetensors"
    data = path.read_bytes()
    for position in range(0, len(data), 7):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        path.write_bytes(bytes(changed))
        with pytest.warns(UserWarning, match="cannot be used"):
            assert load_latest(tmp_path, OWNER).epoch == 1


def test_when_none_is_usable_the_error_says_so(tmp_path):
    for path in write(tmp_path, 1, 2):
        path.write_bytes(truncate(path.read_bytes()))
    with (
        pytest.warns(UserWarning, match="cannot be used"),
        pytest.raises(RunFolderError, match=r"none of the 2 checkpoints .* delete that folder"),
    ):
        load_latest(tmp_path, OWNER)


def test_a_foreign_file_is_called_foreign(tmp_path):
    save_file({"x": torch.ones(1)}, tmp_path / "checkpoint-000009.safetensors")
    with (
        pytest.warns(UserWarning, match="longtail did not write"),
        pytest.raises(RunFolderError, match="none of the 1 checkpoints"),
    ):
        load_latest(tmp_path, OWNER)


def test_a_later_format_is_not_guessed_at(tmp_path):
    meta = {"format": 2, "epoch": 9, "recipe_hash": OWNER, "extra": {}, "sha256": ""}
    path = tmp_path / "checkpoint-000009.safetensors"
    save_file({"x": torch.ones(1)}, path, metadata={"longtail": json.dumps(meta)})
    write(tmp_path, 1)
    save_file({"x": torch.ones(1)}, path, metadata={"longtail": json.dumps(meta)})
    with pytest.warns(UserWarning, match="its format is 2, this version of longtail reads 1"):
        assert load_latest(tmp_path, OWNER).epoch == 1


def test_another_recipes_checkpoint_is_refused_by_both_names(tmp_path):
    write(tmp_path, 1)
    with pytest.raises(
        ValueError, match="holds recipe aaaaaaaaaaaa, this run is recipe bbbbbbbbbbbb; choose another"
    ):
        load_latest(tmp_path, OTHER)


def test_a_file_in_place_of_the_folder_is_a_clear_error(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot write .*taken.* choose a folder that can be written"):
        save(tmp_path / "taken", tensors(), epoch=1, recipe_hash=OWNER)
    with (
        pytest.raises(RunFolderError, match=r"cannot use .*taken as a run folder"),
        locked(tmp_path / "taken"),
    ):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limits")
def test_a_full_disk_loses_nothing_already_written(tmp_path):
    import resource

    save(tmp_path, {"w": torch.ones(1000)}, epoch=1, recipe_hash=OWNER)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(RunFolderError, match=r"cannot write .*free some space"):
            save(tmp_path, {"w": torch.zeros(4000)}, epoch=2, recipe_hash=OWNER)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    found = load_latest(tmp_path, OWNER)
    assert found.epoch == 1
    assert (found.tensors["w"] == 1).all()
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-000001.safetensors"]


def test_what_a_kill_left_behind_is_swept_up(tmp_path):
    (tmp_path / ".checkpoint-000001.safetensors.123.tmp").write_bytes(b"half")
    write(tmp_path, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-000001.safetensors"]


def test_two_runs_cannot_hold_one_folder(tmp_path):
    pytest.importorskip("fcntl")
    busy = pytest.raises(InUseError, match="in use by another run")
    with locked(tmp_path / "run"), busy, locked(tmp_path / "run"):
        pass
    with locked(tmp_path / "run"):
        pass


HOLD = """
import sys, threading
from pathlib import Path
from longtail.training.files import in_parallel, locked

def hold(place):
    with locked(place):
        (place / "held").touch()
        threading.Event().wait()

list(in_parallel(hold, [(Path(sys.argv[1]) / name,) for name in "abc"], 2))
"""


DIE = """
import json, os, signal, sys, time
from pathlib import Path
from longtail.training.files import in_parallel

def work(place, name, deaths):
    tries = place / f"{name}-{time.monotonic_ns()}"
    tries.touch()
    if len(list(place.glob(f"{name}-*"))) <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return name

tasks = [(Path(sys.argv[1]), name, {"b": 1, "c": 99}.get(name, 0)) for name in "abcd"]
lost = (lambda why, place, name, deaths: f"{name}: {why}") if sys.argv[2] == "said" else None
print(json.dumps(list(in_parallel(work, tasks, 2, lost=lost))))
"""


def test_a_worker_that_is_killed_costs_its_own_task_alone(tmp_path, finish):
    done = finish([sys.executable, "-c", DIE, tmp_path, "said"])
    assert done.returncode == 0, done.stderr
    found = sorted(json.loads(done.stdout))
    assert found[:2] == ["a", "b"]
    assert found[2].startswith("c: its worker process was ended three times, the last time alone")
    assert found[3] == "d"
    assert "a worker process was ended; what is not done is started again" in done.stderr
    # it may end with the others before it begins, but not where it is alone
    assert 1 <= len(list(tmp_path.glob("c-*"))) <= 3
    done = finish([sys.executable, "-c", DIE, tmp_path, "not said"])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("RuntimeError: its worker process was ended three times")


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_workers_end_with_a_parent_that_is_killed(tmp_path, how, start):
    pytest.importorskip("fcntl")
    parent = start([sys.executable, "-c", HOLD, tmp_path])
    while len(list(tmp_path.glob("*/held"))) < 2:
        assert parent.poll() is None
        time.sleep(0.05)
    getattr(parent, how)()
    parent.wait()
    for name in "ab":
        with locked(tmp_path / name, wait=math.inf):
            assert (tmp_path / name / "held").exists()
    assert not (tmp_path / "c").exists()
