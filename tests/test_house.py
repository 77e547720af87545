"""The house's own rules: imports run one way, importing is light, public names are documented and typed.

Each rule comes with a counter-test: a planted violation that the checker must find.
"""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import textwrap
import tokenize
from pathlib import Path

import pytest

import longtail

SRC = Path(__file__).parents[1] / "src" / "longtail"

# ---- imports run one way: labels -> counts -> weights -> loss -> training -> evaluation -> report

# a room may import rooms of a lower rank, and its own files; training calls evaluation, so that one is lower
RANK = {
    "_checks": 0,
    "_registry": 0,
    "effective": 1,
    "sources": 1,
    "counts": 2,
    "weights": 3,
    "losses": 4,
    "head": 4,
    "sampling": 4,
    "datasets": 5,
    "models": 5,
    "evaluation": 6,
    "training": 7,
    "paper": 1,
    "compare": 8,
    "predict": 8,
    "reproduce": 8,
    "large_scale": 9,
    "report": 10,
    "cli": 11,
    "__main__": 12,
}
# faces only re-export: they import any room or face, and no room but the command line imports them
FACES = ("__init__", "functional")
USERS_OF_FACES = ("cli",)


def room_of(module):
    """The room of a dotted name under longtail: ``longtail.losses.module`` is in losses."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imported_rooms(source):
    """The rooms that a file imports, anywhere in it, with the line of each import."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "longtail":
                    yield room_of(alias.name), node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "a relative import", node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == "longtail":
            for alias in node.names:
                known = alias.name in RANK or alias.name in FACES
                yield (alias.name if known else "__init__"), node.lineno
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("longtail."):
            yield room_of(node.module), node.lineno


def upstream_imports(room, source):
    """Every import of ``source``, a file of ``room``, that does not run downstream."""
    if room in FACES:
        return [
            f"line {line}: {other}" for other, line in imported_rooms(source) if other not in (*RANK, *FACES)
        ]
    found = []
    for other, line in imported_rooms(source):
        allowed = other == room or RANK.get(other, 99) < RANK[room]
        if not (allowed or (other in FACES and room in USERS_OF_FACES)):
            found.append(f"line {line}: {room} imports {other}")
    return found


def files():
    return [(p, p.relative_to(SRC).parts[0].removesuffix(".py")) for p in sorted(SRC.rglob("*.py"))]


@pytest.mark.parametrize(("path", "room"), files(), ids=[str(p.relative_to(SRC)) for p, _ in files()])
def test_imports_run_one_way(path, room):
    assert room in RANK or room in FACES, f"give the room {room} a rank in {Path(__file__).name}"
    assert upstream_imports(room, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("counts", "from longtail.weights import class_weights"),
        ("counts", "from longtail import weights"),
        ("counts", "import longtail.training.loop"),
        ("counts", "def f():\n    from longtail.evaluation import evaluate"),
        ("losses", "from longtail.head import init_prior_bias_"),
        ("losses", "from longtail import class_weights"),
        ("losses", "import longtail"),
        ("evaluation", "from longtail.training import loop"),
        ("training", "from longtail.functional import class_balanced_focal_loss"),
        ("weights", "from . import counts"),
        ("models", "from longtail.unheard_of import x"),
    ],
)
def test_an_upstream_import_is_found(room, line):
    assert len(upstream_imports(room, line)) == 1


def test_a_downstream_import_passes():
    text = "import numpy\nfrom longtail import _checks, counts\nfrom longtail.losses.module import reduce"
    assert upstream_imports("training", text) == []
    assert upstream_imports("losses", "from longtail.losses.reduction import reduce") == []
    assert upstream_imports("cli", "import longtail") == []


# ---- importing is light

HEAVY = (
    "torch",
    "pandas",
    "sklearn",
    "scipy",
    "pydantic",
    "typer",
    "rich",
    "matplotlib",
    "joblib",
    "safetensors",
    "jinja2",
    "PIL",
    "duckdb",
    "datasets",
    "pyarrow",
)

LIGHT = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Refuse())
{body}
loaded = sorted(set(sys.modules) & set({blocked!r}))
assert not loaded, loaded
"""

CORE = """
import longtail
assert "numpy" not in sys.modules, "importing the package alone needs no NumPy either"
counts = longtail.class_counts(["cat"] * 90 + ["lynx"] * 10)
weights = longtail.class_weights(counts)
assert abs(sum(weights.values()) - 2) < 1e-12
assert abs(longtail.class_weights([90, 10], "inverse")[1] - 1.8) < 1e-12
assert longtail.effective_number(2, beta=0.5) == 1.5
assert len(longtail.sample_weights([0, 0, 1])) == 3
assert longtail.class_weight_dict([0, 0, 0, 1], "inverse")[1] == 2.0
assert longtail.datasets.long_tail_counts(10, 5000, 100)[0] == 5000
assert "class_weights" in dir(longtail)
"""


def run_light(body, blocked=HEAVY):
    script = LIGHT.format(blocked=tuple(blocked), body=textwrap.dedent(body))
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_the_core_needs_numpy_alone():
    done = run_light(CORE)
    assert done.returncode == 0, done.stderr


ABSENT = """
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name.split(".")[0])

sys.meta_path.insert(0, Absent())
"""


@pytest.mark.parametrize(
    ("absent", "body", "message"),
    [
        (
            "torch",
            "import longtail\nlongtail.ClassBalancedLoss",
            r"needs torch; pip install 'longtail\[torch\]'",
        ),
        ("pydantic", "import longtail\nlongtail.recipes", r"needs pydantic; pip install 'longtail\[train\]'"),
        (
            "typer",
            "from longtail.__main__ import main\nmain()",
            r"^longtail: the command line needs typer; pip install 'longtail\[train\]'$",
        ),
    ],
)
def test_what_is_not_installed_is_named_with_the_extra_that_brings_it(absent, body, message):
    script = "import sys\n" + ABSENT.format(absent=absent) + body
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert re.search(message, done.stderr.strip().splitlines()[-1])


@pytest.mark.parametrize(
    ("body", "blocked", "message"),
    [
        ("import longtail\nlongtail.init_prior_bias_", HEAVY, "torch is blocked"),
        ("import longtail\nlongtail.class_weights([1, 2])", (*HEAVY, "numpy"), "numpy is blocked"),
        (
            "sys.meta_path.pop(0)\nimport longtail\nlongtail.recipes",
            HEAVY,
            "AssertionError: .*pydantic",
        ),
    ],
)
def test_the_light_import_check_can_fail(body, blocked, message):
    done = run_light(body, blocked)
    assert done.returncode != 0
    assert re.search(message, done.stderr)


# ---- names stay what they are

CLASH = """
import importlib.util, pkgutil, types
import longtail
unfit = ["longtail.__main__"] + ["longtail.losses.kernels"] * (not importlib.util.find_spec("triton"))
for module in pkgutil.walk_packages(longtail.__path__, "longtail."):
    if module.name not in unfit:
        importlib.import_module(module.name)

def taken():
    modules = {n for n in longtail.__all__ if isinstance(getattr(longtail, n), types.ModuleType)}
    return modules ^ {"functional", "datasets", "recipes"}

assert not taken(), f"{taken()} became modules, or no longer are"
assert longtail.effective_number(1, beta=0.5) == 1.0
assert set(longtail.__all__) <= set(dir(longtail))
longtail.effective_number = types.ModuleType("effective_number")
assert taken() == {"effective_number"}, "a planted clash was not found"
"""


def test_no_module_takes_a_public_name_and_the_check_can_fail():
    done = subprocess.run([sys.executable, "-c", CLASH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'longtail' has no attribute 'class_wieghts'"):
        longtail.class_wieghts  # noqa: B018


# ---- the contract

MISSING = inspect.Parameter.empty
CONTRACT = {
    "effective_number": {"n": MISSING, "beta": None, "volume": None},
    "class_weights": {
        "counts": MISSING,
        "scheme": "effective",
        "beta": 0.999,
        "volume": None,
        "normalize": "classes",
        "empty": "zero",
    },
    "sample_weights": {"labels": MISSING, "scheme": "effective", "beta": 0.999, "normalize": "samples"},
    "class_weight_dict": {"labels": MISSING, "scheme": "effective", "beta": 0.999, "normalize": "samples"},
    "class_counts": {"source": MISSING},
    "ClassBalancedLoss": {
        "class_counts": MISSING,
        "loss": "softmax",
        "beta": 0.999,
        "gamma": 2.0,
        "scheme": "effective",
        "reduction": "mean",
        "normalizer": "samples",
        "ignore_index": -100,
        "label_smoothing": 0.0,
    },
    "init_prior_bias_": {"layer": MISSING, "prior": None},
    "parameter_groups": {"model": MISSING, "weight_decay": MISSING, "no_decay": "head"},
    "evaluate": {},
    "functional.class_balanced_cross_entropy": {"input": MISSING, "target": MISSING, "weight": None},
    "functional.class_balanced_binary_cross_entropy": {"input": MISSING, "target": MISSING, "weight": None},
    "functional.class_balanced_focal_loss": {"input": MISSING, "target": MISSING, "weight": None},
    "functional.class_balanced_softmax_focal_loss": {"input": MISSING, "target": MISSING, "weight": None},
    "datasets.long_tail_counts": {
        "num_classes": MISSING,
        "max_count": MISSING,
        "imbalance_factor": MISSING,
        "profile": "exponential",
    },
    "datasets.long_tail_subset": {"labels": MISSING, "counts": MISSING, "seed": MISSING},
}
POSITIONAL = {"class_weights": 2, "effective_number": 2, "ClassBalancedLoss": 1, "parameter_groups": 1}


def resolve(dotted):
    value = longtail
    for part in dotted.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("name", CONTRACT)
def test_the_contract_holds(name):
    parameters = inspect.signature(resolve(name)).parameters
    for parameter, default in CONTRACT[name].items():
        assert parameter in parameters
        assert parameters[parameter].default == default
    kinds = [p.kind for p in parameters.values()]
    if name in POSITIONAL:
        assert kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) == POSITIONAL[name]
    assert not {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} & set(kinds)


# ---- public names are documented and typed


def public():
    """Every public function and class by dotted name, re-exports under their shortest name only."""
    found = {}
    for place in ("", "functional", "datasets", "evaluation"):
        module = importlib.import_module(f"longtail.{place}" if place else "longtail")
        names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
        for name in names:
            value = getattr(module, name)
            ours = (getattr(value, "__module__", None) or "").startswith("longtail")
            if ours and (inspect.isfunction(value) or inspect.isclass(value)):
                found.setdefault(value, f"{place}.{name}".lstrip("."))
    return {name: value for value, name in found.items()}


def complaints(value):
    """What a public function or class lacks: sections of its docstring, annotations."""
    doc = value.__doc__ or ""
    found = [] if doc else ["no docstring"]
    if inspect.isclass(value):
        if not any(section in doc for section in ("Attributes:", "Args:", "Example:")):
            found.append("no Attributes, Args or Example")
        for name, member in vars(value).items():
            function = (
                member.fget
                if isinstance(member, property)
                else inspect.unwrap(getattr(member, "__func__", member))
            )
            if not name.startswith("_") and inspect.isfunction(function):
                found += [f"{name}: no docstring"] * (not function.__doc__)
                found += [f"{name}: {what}" for what in untyped(function)]
        return found
    source = textwrap.dedent(inspect.getsource(value))
    body = source.split('"""')[-1]
    short = len(inspect.signature(value).parameters) == 1 and len(body.splitlines()) < 5
    if inspect.signature(value).parameters and "Args:" not in doc and not short:
        found.append("no Args")
    if inspect.signature(value).return_annotation is not None and "Returns:" not in doc and not short:
        found.append("no Returns")
    if (re.search(r"\braise\b|\b_?checks?\w*[.(]", body)) and "Raises:" not in doc and not short:
        found.append("no Raises")
    if ">>>" not in doc:
        found.append("no Example")
    return found + untyped(value)


def untyped(function):
    signature = inspect.signature(function)
    missing = [
        f"{name} has no type"
        for name, p in signature.parameters.items()
        if p.annotation is MISSING and name not in ("self", "cls")
    ]
    return missing + ["no return type"] * (signature.return_annotation is MISSING)


@pytest.mark.parametrize("name", public())
def test_public_names_are_documented_and_typed(name):
    assert complaints(public()[name]) == []


def test_the_documentation_check_can_fail():
    def bare(x, y: int = 0):
        if y:
            raise ValueError(x)
        y += 1
        y += 2
        return x

    class Bare:
        def method(self, x):
            return x

    assert complaints(bare) == [
        "no docstring",
        "no Args",
        "no Returns",
        "no Raises",
        "no Example",
        "x has no type",
        "no return type",
    ]
    assert complaints(Bare) == [
        "no docstring",
        "no Attributes, Args or Example",
        "method: no docstring",
        "method: x has no type",
        "method: no return type",
    ]


def test_the_public_names_are_found():
    names = set(public())
    assert {"class_weights", "ClassCounts", "ClassBalancedLoss", "evaluate"} <= names
    assert {"functional.class_balanced_focal_loss", "datasets.long_tail_subset"} <= names
    assert set(longtail.__all__) >= {name.split(".")[0] for name in CONTRACT}


# ---- exceptions from the tools: few, current, each naming its code

EXCEPTIONS_AT_MOST = 25


def exceptions(text):
    """The comments of a Python text that silence a tool."""
    for token in tokenize.generate_tokens(iter(text.splitlines(keepends=True)).__next__):
        if token.type == tokenize.COMMENT and re.search(
            r"type:\s*ignore|noqa|mypy:|ruff:|pragma", token.string
        ):
            yield token.string


def unnamed(comment):
    return not re.search(r"type: ignore\[[\w, -]+\]|noqa: [A-Z]+\d+", comment)


def test_exceptions_are_few_and_name_their_code():
    found = [
        (path.name, comment)
        for path, _ in files()
        for comment in exceptions(path.read_text(encoding="utf-8"))
    ]
    assert [entry for entry in found if unnamed(entry[1])] == []
    assert len(found) <= EXCEPTIONS_AT_MOST, found


def test_a_blanket_exception_is_found():
    planted = (
        'a = 1  # type: ignore\nb = 2  # noqa\nc = "# noqa"\n'
        "d = 3  # noqa: E501\ne = 4  # type: ignore[arg-type]\n"
    )
    comments = list(exceptions(planted))
    assert len(comments) == 4
    assert [unnamed(comment) for comment in comments] == [True, True, False, False]
