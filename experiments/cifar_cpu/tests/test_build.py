"""Building the kernels ahead: once, for this user alone, with every hindrance said."""

import ctypes
import subprocess
import sys

import pytest

from longtail_cifar_cpu import build as building
from longtail_cifar_cpu.build import BuildError, build

QUICK = (*building._FLAGS, "-O0")  # to build, not to run


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_builds_are_kept_by_source_flags_and_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = build(QUICK)
    stamp = first.stat().st_mtime_ns
    assert build(QUICK) == first
    assert first.stat().st_mtime_ns == stamp
    assert build((*QUICK, "-DOTHER")) != first
    assert sorted(p.suffix for p in first.parent.iterdir()) == [".lock", ".so", ".so"]
    assert isinstance(building._load(first), ctypes.CDLL)


def test_what_hinders_the_build_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BuildError, match="CXX='no-such-compiler' is not there; install"):
        build(building._FLAGS)
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(BuildError, match="false failed"):
        build(building._FLAGS)
    monkeypatch.setenv("CXX", "nice c++")
    assert build(QUICK).exists()
    monkeypatch.setenv("CXX", 'c++ "')
    with pytest.raises(BuildError, match="is no command: No closing quotation; mend or unset it"):
        build(QUICK)
    monkeypatch.delenv("CXX")
    with pytest.raises(BuildError, match=r"unrecognized|unknown"):
        build((*building._FLAGS, "--no-such-flag"))
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(BuildError, match=r"cannot keep the kernels: .*file.*; set XDG_CACHE_HOME"):
        build(building._FLAGS)
    monkeypatch.setenv("XDG_CACHE_HOME", "~no-such-user")
    with pytest.raises(BuildError, match=r"cannot keep the kernels: XDG_CACHE_HOME .*~no-such-user"):
        build(building._FLAGS)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BuildError, match="there is no C"):
        build(building._FLAGS)


WORKER = """
import sys, time
from pathlib import Path
from longtail_cifar_cpu import build as building

here, name = Path(sys.argv[1]), sys.argv[2]
(here / f"{name}.ready").touch()
while len(list(here.glob("*.ready"))) < 3:
    time.sleep(0.01)
print(building.build((*building._FLAGS, "-O0")))
"""


def test_three_cold_workers_compile_once(tmp_path, monkeypatch):
    compiler = tmp_path / "counting"
    # a compiler that takes its time: without the lock, all have begun before the first is done
    compiler.write_text(f"""#!/bin/sh\necho one >> {tmp_path}/calls\nsleep 3\nexec c++ "$@"\n""")
    compiler.chmod(0o700)
    monkeypatch.setenv("CXX", str(compiler))
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    workers = [subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True) for i in range(3)]
    try:
        found = {worker.communicate()[0] for worker in workers}
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert found == {f"{building._target(QUICK)}\n"}
    assert (tmp_path / "calls").read_text() == "one\n"


def test_what_is_built_is_the_users_alone(tmp_path, monkeypatch):
    built = build(QUICK)
    assert [oct(p.stat().st_mode & 0o777) for p in (built.parent, built)] == ["0o700", "0o700"]
    for path in (built, built.parent):
        path.chmod(0o770)
        with pytest.raises(
            BuildError, match=r"is open to other users; delete it, and run `make native` again"
        ):
            building._load(built)
        path.chmod(0o700)
    assert isinstance(building._load(built), ctypes.CDLL)
    ours = building.os.getuid()
    monkeypatch.setattr(building.os, "getuid", lambda: ours + 1)
    with pytest.raises(BuildError, match="belongs to another user; set XDG_CACHE_HOME to a folder of yours"):
        building._load(built)
    with pytest.raises(BuildError, match="belongs to another user"):
        build(QUICK)


def test_what_cannot_be_loaded_is_said():
    built = build(QUICK)
    built.write_bytes(b"")
    with pytest.raises(BuildError, match=r"cannot load .*; delete it, or set XDG_CACHE_HOME"):
        building._load(built)


def test_loading_builds_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(building.subprocess, "run", None)
    with pytest.raises(BuildError, match="not built for this machine; run `make native` in a checkout"):
        building.library.__wrapped__()
    assert list(tmp_path.iterdir()) == []


def test_kernels_of_other_instructions_are_others(monkeypatch):
    here = building._target(QUICK)
    monkeypatch.setattr(building, "_instructions", lambda: "another machine's")
    assert building._target(QUICK) != here


def test_the_command_says_what_hinders(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    done = subprocess.run([sys.executable, "-m", "longtail_cifar_cpu"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("longtail_cifar_cpu: CXX='no-such-compiler' is not there; install g++")
