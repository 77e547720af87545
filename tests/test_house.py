"""The house's own rules: imports run one way, importing is light, public names are documented and typed.

Each rule comes with a counter-test: a planted violation that the checker must find.
"""

import ast
import functools
import graphlib
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

# ---- the order of the house: labels -> counts -> vectors -> loss -> training -> comparison -> report

# A line is a room, ranked above the line before it; with "&" it stands beside that one. A room imports rooms
# of lower rank. After the colon stand its files, ranks divided by "/": a file imports files of earlier ranks;
# "*" is every file that is not named, and __init__ comes last where it is not named.
HOUSE = """
_checks
_registry
& _arrays
& _random
& _measured
effective
sources: counted listing / coco hub lists tables / folders frames formats / arrays pictures / __init__
labels
counts
weights
adjust
vectors
losses: __init__ forms fast reduction / batch fast.blocks fast.kernels / fast.fused sigmoid / \
softmax / functional linear / module
& head
& sampling
methods: schedules batches refits synthesis / method / catalogue
datasets: kinds decoding fetch pickles / long_tail / *
& models: *
& evaluation: intervals statistics curves reading / multi_label label_shift / single_label / *
adapters: *
& suggest
& auditing: facts samples / duplicates findings sources / *
training: files / * / checkpoint manifest recipe / acceleration recipes folder data / \
graphs finetune verify embedding / loop / evaluate
compare: columns folds learners many_labels outcome / problem row / table / answer trials / heads / *
& predict
report: tables charts / blocks figures / panels.tail / * / panels / page / audit
cli: terminal / sources scores / *
paper: recipes results / settings beta / reproduce / large_scale / tables figures / page / *
& skeletons: files ddnet recipes augment / clips single_clip figures / *
__main__
"""
APPLICATIONS = ("paper", "skeletons")
# Faces only re-export. The command line and the applications import them; the rooms import one another.
FACES = ("longtail", "longtail.extend", "longtail.functional")


def places(house):
    """The rank of each room, and of each room with an order the ranks of its files."""
    rank, inside, number = {}, {}, 0
    for line in house.strip().splitlines():
        room, _, order = (part.strip() for part in line.removeprefix("&").partition(":"))
        number += not line.startswith("&")
        rank[room] = number
        inside[room] = {file: i for i, level in enumerate(order.split("/")) for file in level.split()}
    return rank, inside


RANK, INSIDE = places(HOUSE)


def name_of(path):
    parts = ("longtail", *path.relative_to(SRC).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def house():
    """The text of every file by its module's name."""
    return {name_of(path): path.read_text(encoding="utf-8") for path in sorted(SRC.rglob("*.py"))}


def room_of(module):
    """The room of a dotted name under longtail: ``longtail.losses.module`` is in losses."""
    return module.split(".")[1] if "." in module else "__init__"


def imports(source, modules):
    """What of the package a text imports, anywhere in it: each module, the name taken of it, the line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "longtail":
                    yield alias.name, None, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "a relative import", None, node.lineno
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "longtail":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                # a room that is planned counts as there
                known = inner in modules or (node.module == "longtail" and alias.name in RANK)
                yield (inner, None, node.lineno) if known else (node.module, alias.name, node.lineno)


def level(module):
    """The place of a file among the files of its room."""
    room, order = room_of(module), INSIDE[room_of(module)]
    file = module.removeprefix(f"longtail.{room}").lstrip(".") or "__init__"
    last = max(order.values(), default=0) + 1
    return order.get(file, last if file == "__init__" else order.get("*", -1))


def upstream_imports(module, source, modules):
    """Every import of a file that the house's order does not allow."""
    room, found = room_of(module), []
    for other, _, line in imports(source, modules):
        theirs = room_of(other)
        if module in FACES:
            allowed = other in FACES or (theirs in RANK and RANK[theirs] < RANK["cli"])
        elif other in FACES:
            allowed = room in ("cli", *APPLICATIONS)
        elif theirs == room:
            allowed = level(other) < level(module)
        else:
            allowed = RANK.get(theirs, 99) < RANK[room] and not (theirs in APPLICATIONS and room != theirs)
        if not allowed:
            found.append(f"line {line}: {module} imports {other}")
    return found


def cycle(texts):
    """A circle of files that import each other, inside functions too, or nothing."""
    graph = {module: {o for o, _, _ in imports(text, texts)} for module, text in texts.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return " <- ".join(error.args[1])
    return None


@pytest.mark.parametrize("module", house())
def test_imports_run_one_way(module):
    texts = house()
    room = room_of(module)
    assert room in RANK or module in FACES, f"give the room {room} a rank in {Path(__file__).name}"
    assert module in FACES or "." not in module.partition(".")[2] or level(module) >= 0, (
        f"give {module} a place among the files of {room} in {Path(__file__).name}"
    )
    assert upstream_imports(module, texts[module], texts) == []


def test_no_files_import_each_other_in_a_circle():
    assert cycle(house()) is None


def test_a_circle_is_found():
    planted = {
        "longtail.counts": "from longtail.weights import a",
        "longtail.weights": "def f():\n    from longtail import effective",
        "longtail.effective": "import longtail.counts",
    }
    assert cycle(planted).count("longtail.counts") in (1, 2)
    assert cycle(planted | {"longtail.effective": "import math"}) is None
    inside = {"longtail.losses": "", "longtail.losses.a": "from longtail.losses.b import x"}
    assert cycle(inside | {"longtail.losses.b": "from longtail.losses import a"}) is not None


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("counts", "from longtail.weights import class_weights"),
        ("counts", "from longtail import weights"),
        ("counts", "import longtail.training.loop"),
        ("counts", "def f():\n    from longtail.evaluation import evaluate"),
        ("losses.module", "from longtail.head import init_prior_bias_"),
        ("losses.module", "from longtail import class_weights"),
        ("losses.module", "import longtail"),
        ("losses.reduction", "from longtail.losses.module import ClassBalancedLoss"),
        ("losses.reduction", "from longtail.losses import module"),
        ("losses.reduction", "from longtail.losses.fast.blocks import blocks"),
        ("cli.train", "from longtail.cli.compare import compare"),
        ("cli.train", "from longtail.paper.tables import cells"),
        ("paper.tables", "from longtail.skeletons import features"),
        ("evaluation", "from longtail.training import loop"),
        ("methods.refits", "from longtail.methods.method import Method"),
        ("training.loop", "from longtail.functional import class_balanced_focal_loss"),
        ("weights", "from . import counts"),
        ("models", "from longtail.unheard_of import x"),
    ],
)
def test_an_upstream_import_is_found(module, line):
    assert len(upstream_imports(f"longtail.{module}", line, house())) == 1


def test_a_file_without_a_place_is_found():
    assert level("longtail.losses.unheard_of") < 0 <= level("longtail.losses.module")
    assert level("longtail.cli.unheard_of") == level("longtail.cli.train")


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("training.loop", "from longtail import _checks, counts\nfrom longtail.losses.module import reduce"),
        ("losses.module", "from longtail.losses.reduction import reduce"),
        ("losses", ""),
        ("cli.weights", "import longtail"),
        ("paper.tables", "import longtail\nfrom longtail.cli.terminal import console"),
    ],
)
def test_a_downstream_import_passes(module, text):
    assert upstream_imports(f"longtail.{module}", f"import numpy\n{text}", house()) == []


# ---- the applications use public names, and nothing uses them


def not_public(application, text, modules):
    """What an application takes from the library that is not in some ``__all__``."""
    found, aliases = [], {}
    for other, name, line in imports(text, modules):
        if room_of(other) == application:
            continue
        if any(part.startswith("_") for part in other.split(".")):
            found.append(f"line {line}: {other}")
        elif name is not None and name not in public_names(other):
            found.append(f"line {line}: {other}.{name}")
    tree = ast.parse(text)
    for node in ast.walk(tree):  # what names of this text are modules of the library
        if isinstance(node, ast.ImportFrom):
            inner = {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            aliases |= {name: full for name, full in inner.items() if full in modules}
        elif isinstance(node, ast.Import):
            aliases |= {a.asname or a.name: a.name for a in node.names if a.name in modules}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            other = aliases[node.value.id]
            inner = f"{other}.{node.attr}"
            if (
                room_of(other) != application
                and inner not in modules
                and node.attr not in public_names(other)
            ):
                found.append(f"line {node.lineno}: {inner}")
    return found


def public_names(module):
    return getattr(importlib.import_module(module), "__all__", ())


@pytest.mark.parametrize("module", [m for m in house() if room_of(m) in APPLICATIONS])
def test_an_application_takes_public_names_only(module):
    texts = house()
    assert not_public(room_of(module), texts[module], texts) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from longtail._checks import choice", "longtail._checks"),
        ("from longtail import _checks", "longtail._checks"),
        ("from longtail.counts import _read", "longtail.counts._read"),
        ("from longtail import counts\ncounts._read()", "longtail.counts._read"),
        ("import longtail\nlongtail.unheard_of", "longtail.unheard_of"),
    ],
)
def test_a_private_name_in_an_application_is_found(text, found):
    assert [entry.split(": ")[1] for entry in not_public("paper", text, house())] == [found]


def test_public_names_in_an_application_pass():
    text = "import longtail\nfrom longtail import datasets\nlongtail.class_weights\ndatasets.long_tail_counts"
    assert not_public("paper", text, house()) == []


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
    "ijson",
    "pooch",
    "requests",
    "filelock",
    "datasets",
    "pyarrow",
    "keras",
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
assert {"sklearn", "transformers", "keras"} <= set(dir(longtail.adapters))
"""


def run_light(body, blocked=HEAVY):
    script = LIGHT.format(blocked=tuple(blocked), body=textwrap.dedent(body))
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_the_core_needs_numpy_alone():
    done = run_light(CORE)
    assert done.returncode == 0, done.stderr


def test_weights_of_a_list_leave_the_readers_of_files_alone():
    readers = ("longtail.counts", "longtail.labels", "longtail.sources", "zipfile", "dataclasses", "json")
    body = "import longtail\nassert abs(longtail.class_weights([90, 10], 'inverse')[1] - 1.8) < 1e-12"
    done = run_light(body, readers)
    assert done.returncode == 0, done.stderr
    assert run_light("import longtail\nlongtail.class_counts([0, 0, 1])", readers).returncode != 0


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
            r"^longtail: the command line needs typer; pip install 'longtail\[cli\]'$",
        ),
        (
            "jinja2",
            "from longtail.cli import main\nsys.argv = ['longtail', 'weights', '5,3', '--explore']\nmain()",
            r"^error: this command needs jinja2; pip install 'longtail\[report\]'$",
        ),
        (
            "torch",
            "from longtail.cli import main\nsys.argv = ['longtail', 'train', 'digits']\nmain()",
            r"^error: this command needs torch; pip install 'longtail\[train\]'$",
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
unfit = ["longtail.__main__", "longtail.adapters.keras"]  # the second's backend is the user's choice
unfit += ["longtail.losses.fast.kernels"] * (not importlib.util.find_spec("triton"))
for module in pkgutil.walk_packages(longtail.__path__, "longtail."):
    if module.name not in unfit:
        importlib.import_module(module.name)

def taken():
    modules = {n for n in longtail.__all__ if isinstance(getattr(longtail, n), types.ModuleType)}
    return modules ^ {"functional", "datasets", "recipes", "methods", "adapters", "compare"}

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
    for place in ("", "functional", "datasets", "evaluation", "adapters.sklearn", "adapters.transformers"):
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


# ---- a message of an error has a remedy

# after a semicolon; or the words of what is wanted ("must be ..., got ..."); or of what to do
REMEDY = re.compile(r"; ?\S|\bmust\b|\b(give|pass|use|choose|name|check|leave|install|delete|make) ")
TOLD = re.compile(r"(Error|Exception)$")
NOT_FOR_USERS = {"AttributeError", "KeyError", "IndexError", "StopIteration", "_Refused", "_Unusable"}
# Part of a message that another place completes with the remedy, or never shown.
COMPLETED = {
    "compare.trials": 1,
    "compare.runs": 5,  # "left out: damaged: ..."
    "datasets.features": 1,  # the inner message has it
    "losses.fast.blocks": 1,  # caught there
    "models.image_classifiers": 3,  # "...; put back a copy of what is damaged, or delete the folder"
    "predict": 1,
    "skeletons.files": 1,
    "training.finetune": 5,
    "training.folder": 3,
    "training.manifest": 5,
    "training.recipe": 1,  # a code, no message
    "evaluation.reading": 1,  # a constant holds the remedy
}


def text_of(node):
    """What a message says literally; None for one that is made elsewhere."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        parts = [v.value if isinstance(v, ast.Constant) else ast.unparse(v.value) for v in node.values]
        values = [not isinstance(v, ast.Constant) for v in node.values]
        # a value called remedy or hint is one
        told = {True: "; ...", False: "..."}
        return "".join(
            told[bool(re.search("remedy|hint", part))] if value else part
            for part, value in zip(parts, values, strict=True)
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return None if None in (sides := [text_of(node.left), text_of(node.right)]) else "".join(sides)
    return None


def without_remedy(source):
    """Every error of a file whose literal message says what is wrong and not what to do."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call) or not node.exc.args:
            continue
        name, message = ast.unparse(node.exc.func).split(".")[-1], node.exc.args[0]
        sides = [message.body, message.orelse] if isinstance(message, ast.IfExp) else [message]
        for text in filter(None, map(text_of, sides)):
            if TOLD.search(name) and name not in NOT_FOR_USERS and not REMEDY.search(text):
                found.append(f"line {node.lineno}: {text}")
    return found


@pytest.mark.parametrize("module", house())
def test_a_message_says_what_to_do(module):
    found = without_remedy(house()[module])
    assert len(found) == COMPLETED.get(module.removeprefix("longtail."), 0), found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("raise ValueError('source has no rows')", 1),
        ("raise TypeError(f'label {label!r} is no column')", 1),
        ("raise a.DamagedError('is missing')", 1),
        ("raise ValueError('it is ' + 'odd')", 1),
        ("raise ValueError('it is odd' if x else 'odd; give another')", 1),
        ("raise ValueError('source has no rows; check the path')", 0),
        ("raise ValueError(f'beta must be in [0, 1], got {beta}')", 0),
        ("raise ValueError(f'{name} is odd{remedy}')", 0),
        ("raise KeyError('x')", 0),
        ("raise ValueError(message)", 0),
    ],
)
def test_a_message_without_a_remedy_is_found(line, found):
    assert len(without_remedy(line)) == found


# ---- a message writes an argument as name=, which the command line turns into its option

WORDS = (
    "data|drop|features|group|groups|image|keep|label|labels|learners|losses|method|methods|metric|"
    "model|out|pooling|root|schemes|separator|size|test|text|volume|beta"
)
BARE = re.compile(
    rf"(?<![\w=-])({WORDS}) (is|are) given\b|\b(beside|without) ({WORDS})(?=[;,]| or | and |$)"
    rf"|\b(by|give) ({WORDS})(?=[;,]|$)"
)


def bare_arguments(source):
    """Every message of a file that names an argument, for which there is an option, as a word."""
    found = []
    for node in ast.walk(ast.parse(source)):
        call = node.exc if isinstance(node, ast.Raise) else node
        if isinstance(call, ast.Call) and (call is not node or ast.unparse(call.func).endswith("warn")):
            sides = [[arg.body, arg.orelse] if isinstance(arg, ast.IfExp) else [arg] for arg in call.args]
            texts = [text_of(side) for arg in sides for side in arg]
            found += [text for text in texts if text and BARE.search(text)]
    return found


@pytest.mark.parametrize("module", [name for name in house() if not re.search(r"\.(cli|adapters)\b", name)])
def test_a_message_names_arguments_as_the_command_line_can_translate_them(module):
    assert not bare_arguments(house()[module])


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("raise ValueError('groups is given beside groups_from; leave one out')", 1),
        ("raise ValueError('text is given without label; name both')", 1),
        ("raise ValueError(f'{title} has no names; name a column by group')", 1),
        ("raise ValueError('shapes differ; give size, which makes them alike')", 1),
        ("raise ValueError('groups= is given beside groups_from=; leave one out')", 0),
        ("raise ValueError('shapes differ; give size=, which makes them alike')", 0),
    ],
)
def test_an_argument_as_a_word_is_found(line, found):
    assert len(bare_arguments(line)) == found


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
        for path in sorted(SRC.rglob("*.py"))
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


def test_the_sdist_has_all_that_the_repository_has() -> None:
    """Tests, their data and what they read: the suite must pass in an unpacked sdist."""
    import tomllib

    root = SRC.parents[1]
    if not (root / ".git").exists():
        pytest.skip("an sdist, not the repository")
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    tracked = {"/" + line.split("/")[0] for line in listed.splitlines()}
    about = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    included = set(about["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])
    assert tracked - included == {"/pyproject.toml", "/.gitignore"}  # which hatchling takes by itself
    assert included <= tracked


# ---- what CI installs: pinned, with hashes


def hashed(text):
    """The versions of a file of hashes, by normal name; a line without a hash of its own is left out."""
    entries = re.findall(
        r"^([\w.-]+)==(\S+)((?: ;[^\\\n]*)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", text, re.M
    )
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version, _ in entries}


def test_hashes_are_of_the_pinned_versions_and_of_all_that_the_tests_need():
    import tomllib

    root = SRC.parents[1]
    text = (root / ".github" / "hashes.txt").read_text(encoding="utf-8")
    found = hashed(text)
    assert len(found) == len(re.findall(r"^[\w.-]+==", text, re.M))
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    pinned = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    told = "make .github/hashes.txt anew by the command that it names"
    assert {name: found[name] for name in found.keys() & pinned} == {
        name: pinned[name] for name in found.keys() & pinned
    }, told
    about = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras, asked = about["optional-dependencies"], {"dev"}
    while (
        more := {
            inner
            for extra in asked
            for line in extras[extra]
            for inner in re.findall(r"longtail\[(\w+)\]", line)
        }
        - asked
    ):
        asked |= more
    wanted = [re.match(r"[\w-]+", line)[0] for extra in asked for line in extras[extra]] + ["numpy"]
    missing = {re.sub(r"[-_.]+", "-", name).lower() for name in wanted} - {"longtail", *found}
    assert not missing, told


def test_a_line_without_a_hash_is_found():
    good = f"a-b==1.0 ; sys_platform == 'linux' \\\n    --hash=sha256:{'0' * 64}\n"
    assert hashed(good) == {"a-b": "1.0"}
    assert hashed("a-b==1.0\n" + good.replace("a-b", "C_d")) == {"c-d": "1.0"}
