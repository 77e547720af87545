"""The built wheel, tried from an empty folder in an environment of its own: ``make wheel``, ``make lowest``.

Run by the tests' Python, this file builds the wheel and installs it; run by that environment's with the path
of the wheel, it is the suite. With ``--lowest`` the environment holds nothing but what the wheel asks for, in
the lowest versions that pyproject.toml allows; else it sees the packages of the tests.
"""

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def lowest():
    """The lower bounds in pyproject.toml as pip's constraints."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {*project["dependencies"], *(r for rs in project["optional-dependencies"].values() for r in rs)}
    bounds = (re.match(r"([\w-]+)>=([\w.]+)", requirement) for requirement in asked)
    return sorted({f"{bound[1]}=={bound[2]}" for bound in bounds if bound})


def build_and_try(only_lowest):
    with tempfile.TemporaryDirectory() as name:
        place, python = Path(name), Path(name, "venv", "bin", "python")
        pip = ["-m", "pip", "--quiet", "--disable-pip-version-check"]
        run([sys.executable, *pip, "wheel", "--no-deps", "--wheel-dir", place, ROOT])
        (wheel,) = place.glob("*.whl")
        run([sys.executable, "-m", "venv", place / "venv"])
        if only_lowest:
            (place / "lowest.txt").write_text("\n".join(lowest()))
            run([python, *pip, "install", "-c", place / "lowest.txt", f"{wheel}[report]"])
            run([python, "-m", "pip", "list"])  # which versions these were
        else:
            run([python, *pip, "install", "--no-deps", wheel])
            own = subprocess.check_output(
                [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
            )
            Path(own.strip(), "tests.pth").write_text(sysconfig.get_path("purelib"))
        (place / "empty").mkdir()
        run([python, __file__, wheel], cwd=place / "empty")


def run(command, **options):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, check=True, env=environment, **options)


def longtail(*arguments, status=0):
    done = subprocess.run(
        [Path(sys.prefix, "bin", "longtail"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, (arguments, done.stdout, done.stderr)
    return done.stdout + done.stderr


def try_wheel(wheel):
    import longtail as package

    home = Path(package.__file__).parent
    assert home.is_relative_to(sys.prefix), home

    # every file of the package and nothing else
    kept = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src").rglob("*") if p.is_file()}
    kept = {name for name in kept if "__pycache__" not in name and ".egg-info" not in name}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == kept, packed ^ kept
    assert {"longtail/py.typed", "longtail/report/assets/page.js", "longtail/paper/table2.csv"} <= packed

    # what is registered is there
    package_of = importlib.metadata.distribution("longtail")
    for point in package_of.entry_points:
        module = home.parent / point.module.replace(".", "/")
        assert module.is_dir() or module.with_suffix(".py").is_file(), point
    assert longtail("--version") == f"longtail {package_of.version}\n"

    # the core, and the commands that need no torch
    assert [round(w, 12) for w in package.class_weights([90, 10], "inverse")] == [0.2, 1.8]
    weights = json.loads(longtail("weights", "5000,500,50", "--format", "json"))
    assert [row["count"] for row in weights["weights"]] == [5000, 500, 50]
    longtail("weights", "5000,500,50", "--explore", "--out", "explorer.html")
    assert Path("explorer.html").stat().st_size > 1e6  # the script that draws is in it
    longtail("figures", "5000,500,50", "--format", "png")
    assert "cifar10" in longtail("reproduce", "table2", "--dataset", "cifar10", "--show")
    commands = longtail("--help")
    for name in (
        "weights",
        "compare",
        "train",
        "evaluate",
        "predict",
        "report",
        "figures",
        "reproduce",
        "data",
    ):
        assert f" {name} " in commands, name

    # a comparison, where torch is
    if importlib.util.find_spec("torch") is None:
        assert "pip install 'longtail[train]'" in longtail("train", "digits", status=2)
        return
    grid = ["--loss", "softmax", "--scheme", "none", "--seeds", "1", "--epochs", "6", "--jobs", "1"]
    longtail("compare", *grid, "--out", "runs")
    assert "balanced" in longtail("evaluate", "runs/softmax-none/seed0")
    longtail("report", "runs")
    assert Path("report.html").is_file()


if __name__ == "__main__":
    if sys.argv[1:] in ([], ["--lowest"]):
        build_and_try("--lowest" in sys.argv)
    else:
        try_wheel(sys.argv[1])
