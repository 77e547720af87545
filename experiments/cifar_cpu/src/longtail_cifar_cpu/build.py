"""Build the kernels once for this machine, keep them in a folder of the user's own, and load them.

`python -m longtail_cifar_cpu` builds; training only loads what is there.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

import filelock

__all__ = ["BuildError", "build", "library"]

_SOURCE: Final = Path(__file__).with_name("convolution.cpp")
_FLAGS: Final = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared")


class BuildError(RuntimeError):
    """There are no kernels for this machine, or they cannot be built or loaded."""


def build(flags: tuple[str, ...] = _FLAGS) -> Path:
    """Compile the kernels for this machine unless they are there; of several processes, one does.

    Raises:
        BuildError: there is no compiler, or it failed, or the folder cannot be written or is open to others.
    """
    compiler = _compiler()
    try:
        target = _target(flags)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _refuse_others(target.parent)
        # the system opens the lock of a process that was killed
        with filelock.FileLock(target.with_name("build.lock")):
            if not target.exists():
                with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                    built = Path(folder) / target.name
                    _run([*compiler, *flags, "-o", str(built), str(_SOURCE)])
                    built.chmod(0o700)
                    built.replace(target)
    except OSError as error:
        remedy = "set XDG_CACHE_HOME to a folder of yours that can be written"
        raise BuildError(f"cannot keep the kernels: {error}; {remedy}") from error
    return target


@functools.cache
def library() -> ctypes.CDLL:
    """Load the kernels that `build` made for this machine.

    Raises:
        BuildError: they are not built, cannot be loaded, or could have been put there by another user.
    """
    target = _target(_FLAGS)
    if not target.exists():
        raise BuildError("they are not built for this machine; run `make native` in a checkout of longtail")
    return _load(target)


def _target(flags: tuple[str, ...]) -> Path:
    """Where the kernels of this source lie that run on this machine's instructions."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = Path(cache).expanduser() / "longtail" / "cifar_cpu"
    except RuntimeError as error:  # no such user, or a user without a home, as in some containers
        remedy = "set XDG_CACHE_HOME to a folder of yours that can be written"
        raise BuildError(
            f"cannot keep the kernels: XDG_CACHE_HOME is {cache!r}; {error}; {remedy}"
        ) from error
    key = hashlib.sha256(_SOURCE.read_bytes() + repr((flags, _instructions())).encode()).hexdigest()[:16]
    return folder / f"convolution-{key}.so"


def _instructions() -> str:
    """The instructions that -march=native may use here."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))]
    return " ".join([platform.machine(), *sorted(set(" ".join(named).split()))])


def _compiler() -> list[str]:
    try:
        named = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise BuildError(f"CXX={os.environ['CXX']!r} is no command: {error}; mend or unset it") from error
    compiler = named or [c for c in ("c++", "g++", "clang++") if shutil.which(c)][:1]
    if not compiler or shutil.which(compiler[0]) is None:
        what = f"CXX={shlex.join(named)!r} is not there" if named else "there is no C++ compiler"
        raise BuildError(f"{what}; install g++ or clang++, or name one by the variable CXX")
    return compiler


def _refuse_others(path: Path) -> None:
    """Refuse what somebody else owns or may write: a library that is loaded can do all that the user can."""
    about = path.stat()
    if about.st_uid != os.getuid():
        raise BuildError(f"{path} belongs to another user; set XDG_CACHE_HOME to a folder of yours")
    if stat.S_IMODE(about.st_mode) & 0o077:
        raise BuildError(f"{path} is open to other users; delete it, and run `make native` again")


def _load(target: Path) -> ctypes.CDLL:
    try:
        for path in (target.parent, target):
            _refuse_others(path)
        loaded = ctypes.CDLL(str(target))
    except OSError as error:
        remedy = "delete it, or set XDG_CACHE_HOME to a folder that programs may be loaded from"
        raise BuildError(f"cannot load {target}: {error}; {remedy}") from error
    pointer, size, number = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
    for name, pointers, sizes in (
        ("convolve", 5, 5),
        ("convolve_back", 9, 5),
        ("blocks", 2, 2),
        ("blocks_back", 5, 2),
        ("norm", 4, 2),
        ("norm_relu", 5, 2),
        ("norm_back", 7, 2),
    ):
        function = getattr(loaded, f"longtail_{name}")
        function.argtypes, function.restype = [*[pointer] * pointers, *[size] * sizes, number], number
        function.errcheck = _check
    return loaded


def _check(code: int, *_: Any) -> None:
    if code:
        raise MemoryError(
            "no memory is left for the CPU kernels; lower batch_size, or use acceleration='none'"
        )


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip().splitlines()[-5:]
        raise BuildError(f"{command[0]} failed:\n" + "\n".join(last)) from error
    except OSError as error:
        raise BuildError(f"{command[0]} failed: {error}") from error
