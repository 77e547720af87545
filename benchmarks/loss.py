"""The loss against every peer: time, memory, and how close it comes to merely copying the matrix.

    python benchmarks/loss.py                    # the CPU, a quarter of an hour
    python benchmarks/loss.py --device cuda      # a GPU, under three minutes; started again, it goes on

Forward and backward of a batch mean, index targets. All contestants of a shape take turns in one process; a
ratio is the median over rounds of theirs / ours. Peers that are not installed, or whose temporaries would not
fit into the free memory, are left out and named. Writes results/benchmarks/loss-DEVICE.json after every
shape, and the table and the chart of docs/benchmark-tables.md at the end.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from core import PAGE, RESULTS, provenance, put_in_page, versions

import longtail

SHAPES = [
    (128, 10),
    (128, 100),
    (256, 1000),
    (1024, 8142),
    (4096, 32_000),
    (2048, 128_256),
    (4, 19, 512, 512),
]
CHART = PAGE.parent / "images" / "loss-speed.png"
PEERS = {"balanced-loss": "balanced_loss", "kornia": "kornia.losses", "torchvision": "torchvision.ops"} | {
    "liger-kernel": "liger_kernel.transformers"
}
HEAD = (4096, 2048, 128_000)  # samples, features, classes of the last layer and its loss in one
PATIENCE = 5.0  # seconds; whoever takes longer for the second call is timed by that call alone
TEMPORARIES = 14  # matrices that the hungriest peer holds at once
LIMITS = {  # theirs / ours, at least; the measures, judged where they were asked
    ("cpu", "focal", "balanced-loss"): {(1024, 8142): 8.0, (128, 10): 1.5, (128, 100): 1.5, (256, 1000): 1.5},
    ("cpu", "softmax", "torch cross_entropy"): {(1024, 8142): 1.3},
    ("cuda", "focal", "torchvision"): dict.fromkeys(SHAPES[2:6], 5.0),
    ("cuda", "softmax", "liger-kernel"): dict.fromkeys(SHAPES[2:6], 1.0),
}
Call = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def installed() -> tuple[dict[str, Any], dict[str, str]]:
    """Import the peers; say why one is missing."""
    found, missing = {}, {}
    for name, module in PEERS.items():
        try:
            found[name] = importlib.import_module(module)
        except Exception as error:
            missing[name] = f"{type(error).__name__}: {error}".splitlines()[0][:120]
    return found, missing


def contestants(shape: tuple[int, ...], device: str, peers: dict[str, Any]) -> dict[str, dict[str, Call]]:
    """Every way to compute a loss of this shape, by family; the first of a family is ours."""
    classes = shape[1]
    counts = np.maximum(1, np.round(5000 * 0.01 ** (np.arange(classes) / (classes - 1)))).astype(np.int64)

    def ours(loss: str, backend: str) -> Call:
        return longtail.ClassBalancedLoss(
            counts,
            beta=0.999,
            loss=loss,
            backend=backend,
            normalizer="weights" if loss == "softmax" else "samples",
        ).to(device)

    weight = ours("softmax", "auto").weight
    weights = {dtype: weight.to(dtype) for dtype in (torch.float32, torch.bfloat16)}

    def one_hot(y: torch.Tensor) -> torch.Tensor:
        return F.one_hot(y, classes).movedim(-1, 1).float()

    first = "auto" if device == "cpu" else "fused"  # on a GPU "auto" waits for what is measured here
    table: dict[str, dict[str, Call]] = {
        loss: {"ours": ours(loss, first), "ours, torch": ours(loss, "torch")}
        for loss in ("softmax", "focal", "softmax_focal")
    }
    if device == "cpu" and len(shape) > 2:  # "auto" is the plain path there
        table["softmax"]["ours, fused"] = ours("softmax", "fused")
    table["softmax"]["torch cross_entropy"] = lambda x, y: F.cross_entropy(x, y, weights[x.dtype])
    if "balanced-loss" in peers and len(shape) == 2:
        table["focal"]["balanced-loss"] = peers["balanced-loss"].Loss(
            "focal_loss", beta=0.999, fl_gamma=2.0, samples_per_class=counts, class_balanced=True
        )
    if "torchvision" in peers:
        focal = peers["torchvision"].sigmoid_focal_loss
        table["focal"]["torchvision"] = lambda x, y: (
            focal(x, one_hot(y), alpha=-1, reduction="sum") / y.numel()
        )
    if "kornia" in peers:
        binary, multi = peers["kornia"].binary_focal_loss_with_logits, peers["kornia"].focal_loss
        table["focal"]["kornia"] = lambda x, y: binary(x, one_hot(y), None, reduction="sum") / y.numel()
        table["softmax_focal"]["kornia"] = lambda x, y: multi(x, y, None, reduction="mean", weight=weight)
    if "liger-kernel" in peers and device == "cuda" and len(shape) == 2:
        liger = peers["liger-kernel"].LigerCrossEntropyLoss(weight=weight)
        table["softmax"]["liger-kernel"] = lambda x, y: liger(x * 1, y)  # it overwrites its logits
    return table


def clock(call: Callable[[], object], repeat: int, device: str) -> float:
    """Seconds of one call, by the device's own clock."""
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(repeat):
            call()
        return (time.perf_counter() - start) / repeat
    start_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start_event.record()
    for _ in range(repeat):
        call()
    end_event.record()
    torch.cuda.synchronize()
    return float(start_event.elapsed_time(end_event)) / 1e3 / repeat


def peak_bytes(call: Callable[[], object], x: torch.Tensor) -> int:
    """Most memory that forward and backward hold at once beyond the logits, as torch's allocators see it."""
    x.grad = None
    gc.collect()
    if x.is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        call()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    return int(np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]).max())


def free_bytes(device: str) -> int:
    """Memory of the device that can be had."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available


def measure(
    shape: tuple[int, ...], dtype: torch.dtype, device: str, peers: dict[str, Any], seconds: float
) -> list[dict[str, Any]]:
    """Time all contestants of one shape in turns."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=draw).to(device, dtype)
    y = torch.randint(0, shape[1], shape[:1] + shape[2:], generator=draw).to(device)
    size = x.numel() * x.element_size()
    spare = torch.empty_like(x)

    def copy() -> None:
        spare.copy_(x)

    clock(copy, 3, device)
    copying = statistics.median(clock(copy, 10, device) for _ in range(5))
    leaf = x.requires_grad_()
    rows = []
    for family, calls in contestants(shape, device, peers).items():

        def step(call: Call) -> Callable[[], None]:
            def run() -> None:
                leaf.grad = None
                call(leaf, y).backward()

            return run

        steps: dict[str, Callable[[], None]] = {}
        failed, slow, value = {}, {}, None
        for name, call in calls.items():
            try:
                steps[name] = step(call)
                steps[name]()  # compilers, caches
                now = float(call(leaf.detach(), y))
                once = clock(steps[name], 1, device)
                if once > PATIENCE and name != "ours":
                    slow[name] = once
                    del steps[name]
            except Exception as error:
                failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:120]
                steps.pop(name, None)
                continue
            value = now if value is None else value
            comparable = name.startswith("ours") or name in ("torch cross_entropy", "balanced-loss")
            # the plain formulas compute bfloat16 in bfloat16
            if comparable and abs(now - value) > (1e-4 if dtype == torch.float32 else 2e-2) * abs(value):
                raise AssertionError(f"{family} {shape}: {name} gives {now}, ours {value}")
        repeat = {n: max(1, round(0.005 / max(clock(s, 1, device), 1e-6))) for n, s in steps.items()}
        times: dict[str, list[float]] = {n: [] for n in steps}
        begin = time.perf_counter()
        while len(times["ours"]) < 41 and (len(times["ours"]) < 3 or time.perf_counter() - begin < seconds):
            order = list(steps) if len(times["ours"]) % 2 else list(reversed(steps))
            for name in order:
                times[name].append(clock(steps[name], repeat[name], device))
        for name, once in slow.items():
            ratio = once / statistics.median(times["ours"])
            failed[name] = f"too slow for rounds: {once:.1f} s for one call, {ratio:.1f} times ours"
            print(f"{shape!s:18} {family:14} {name:20} {failed[name]}", flush=True)
        for name in steps:
            low, ratio, high = statistics.quantiles(
                [t / o for t, o in zip(times[name], times["ours"], strict=True)], n=4
            )
            limit = LIMITS.get((device, family, name), {}).get(shape)
            rows.append(
                {
                    "loss": family,
                    "shape": list(shape),
                    "dtype": str(dtype).removeprefix("torch."),
                    "name": name,
                    "rounds": len(times[name]),
                    "seconds": statistics.median(times[name]),
                    "times_ours": ratio,
                    "times_ours_quartiles": [low, high],
                    "limit": limit,
                    "passed": None if limit is None else ratio >= limit,
                    "peak_bytes": peak_bytes(steps[name], leaf),
                    "gradient_bytes": size,
                    "share_of_copy_bandwidth": 2
                    * size
                    / statistics.median(times[name])
                    / (2 * size / copying),
                }
            )
            ms = rows[-1]["seconds"] * 1e3
            print(
                f"{shape!s:18} {rows[-1]['dtype']:9} {family:14} {name:20} {ms:9.3f} ms "
                f"{ratio:6.2f} x ours [{low:.2f}, {high:.2f}]",
                flush=True,
            )
        rows += [
            {"loss": family, "shape": list(shape), "name": name, "failed": why}
            for name, why in failed.items()
        ]
    return rows


def measure_head(device: str) -> list[dict[str, Any]]:
    """Time and weigh a wide last layer with its loss: the product of matrices takes nearly all.

    Once each on the CPU; on a GPU, where the first call compiles, the mean of five more.
    """
    samples, features, classes = HEAD
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(samples, features, generator=draw).to(device).requires_grad_()
    w = (torch.randn(classes, features, generator=draw) / features**0.5).to(device).requires_grad_()
    y = torch.randint(0, classes, (samples,), generator=draw).to(device)
    gradients = 4 * (x.numel() + w.numel())
    cross, linear_cross = (
        longtail.functional.class_balanced_cross_entropy,
        longtail.functional.class_balanced_linear_cross_entropy,
    )
    calls: dict[str, Callable[[], torch.Tensor]] = {
        "class_balanced_linear_cross_entropy": lambda: linear_cross(x, w, None, y),
        "class_balanced_cross_entropy of F.linear": lambda: cross(F.linear(x, w), y),
    }
    if hasattr(F, "linear_cross_entropy"):  # torch 2.13
        calls["torch linear_cross_entropy"] = lambda: F.linear_cross_entropy(x, w, y)
        chunks = torch.nn.LinearCrossEntropyOptions()  # its own choice of their size
        calls["torch linear_cross_entropy, in chunks"] = lambda: F.linear_cross_entropy(
            x, w, y, options=chunks
        )
    rows = []
    for name, call in calls.items():

        def step(call: Callable[[], torch.Tensor] = call) -> None:
            x.grad = w.grad = None
            call().backward()  # type: ignore[no-untyped-call]

        if device == "cuda":
            step()
            seconds = clock(step, 5, device)
        w.grad = None
        begin = time.perf_counter()
        peak = peak_bytes(step, x)
        if device == "cpu":
            seconds = time.perf_counter() - begin
        rows.append(
            {
                "name": name,
                "seconds": seconds,
                "peak_bytes": peak,
                "peak_bytes_beyond_gradients": peak - gradients,
            }
        )
        print(f"{HEAD!s:18} {name:42} {seconds:7.3f} s {peak / 2**30:6.2f} GiB", flush=True)
    return rows


def run(device: str, seconds: float) -> None:
    """Measure every shape that fits, going on where an interrupted run of the same code stopped."""
    path = RESULTS / f"loss-{device}.json"
    about = provenance()
    about["device"] = torch.cuda.get_device_name() if device == "cuda" else about["device"]
    about["versions"] |= versions(*PEERS, "triton")
    peers, missing = installed()
    result: dict[str, Any] = {"name": f"loss-{device}"} | about | {"not_installed": missing}
    result |= {"finished": False, "skipped": [], "cases": {}}
    if path.exists():
        old = json.loads(path.read_text())
        same = all(old.get(k) == about[k] for k in ("commit", "device")) and not about["uncommitted_changes"]
        if same and not old["finished"]:
            result |= {key: old[key] for key in ("cases", "head") if key in old}
    dtypes = (torch.float32, torch.bfloat16) if device == "cuda" else (torch.float32,)
    for shape in SHAPES:
        for dtype in dtypes:
            case = f"{shape} {dtype}"
            size = int(np.prod(shape)) * dtype.itemsize
            reason = None
            if TEMPORARIES * size > free_bytes(device):
                reason = f"{TEMPORARIES} matrices of {size / 2**30:.1f} GiB do not fit"
            if reason:
                result["skipped"].append({"case": case, "reason": reason})
                print(f"{case}: skipped, {reason}")
                continue
            if case not in result["cases"]:
                try:
                    result["cases"][case] = measure(shape, dtype, device, peers, seconds)
                except Exception as error:  # the other cases can still be measured
                    reason = f"{type(error).__name__}: {error}".splitlines()[0]
                    result["skipped"].append({"case": case, "reason": reason})
                    print(f"{case}: {reason}", flush=True)
                path.write_text(json.dumps(result, indent=1) + "\n")
    if "head" not in result:
        result["head"] = measure_head(device)
    result["finished"] = True
    path.write_text(json.dumps(result, indent=1) + "\n")


def run_head(device: str) -> None:
    """Measure the last layer again, and nothing else of a run that is there."""
    path = RESULTS / f"loss-{device}.json"
    if not path.exists():
        raise SystemExit(f"{path} is not there; run without --head first")
    result = json.loads(path.read_text())
    result["head_made"], result["head"] = provenance(), measure_head(device)
    path.write_text(json.dumps(result, indent=1) + "\n")


def results() -> dict[str, dict[str, Any]]:
    """Read what is measured, by device; a run that was stopped has no last part yet, and does not count."""
    paths = {device: RESULTS / f"loss-{device}.json" for device in ("cpu", "cuda")}
    found = {device: json.loads(path.read_text()) for device, path in paths.items() if path.exists()}
    return {device: result for device, result in found.items() if "head" in result}


def write_page() -> None:
    """Put the table and the chart's caption between their marks in docs/benchmark-tables.md."""
    lines: list[str] = []
    measured = results()
    for device, result in measured.items():
        v = result["versions"]
        lines += [
            f"{result['device']}, {result['cores']} cores, torch {v['torch']}, {result['date'][:10]}, commit "
            f"{(result['commit'] or 'unknown')[:10]}, load {result['load_average_before']} before:",
            "",
            "| shape | loss | | ms | times ours (quartiles) | asked | peak / gradient | of copy speed |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for r in (r for rows in result["cases"].values() for r in rows if "failed" not in r):
            low, high = r["times_ours_quartiles"]
            ratio = "1" if r["name"] == "ours" else f"{r['times_ours']:.2f} ({low:.2f} to {high:.2f})"
            asked = {True: f"{r['limit']}, met", False: f"{r['limit']}, **missed**", None: ""}[r["passed"]]
            peak = f"{r['peak_bytes'] / r['gradient_bytes']:.2f}"
            shape = "x".join(str(n) for n in r["shape"]) + (" bf16" if r["dtype"] == "bfloat16" else "")
            cells = [shape, r["loss"], r["name"], f"{r['seconds'] * 1e3:.3g}", ratio, asked, peak]
            lines.append(f"| {' | '.join(cells)} | {r['share_of_copy_bandwidth']:.0%} |")
        once, made = ", once each" if device == "cpu" else "", result.get("head_made")
        when = f" ({made['date'][:10]}, commit {made['commit'][:10]})" if made else ""
        lines += [
            "",
            "The last layer and its loss, {} samples of {} features, {:,} classes{}{}:".format(
                *HEAD, once, when
            ),
            "",
            "| | s | peak, GiB | beyond the gradients, GiB | of the plain one's |",
            "|---|---|---|---|---|",
        ]
        plain = result["head"][1]["peak_bytes_beyond_gradients"]
        for r in result["head"]:
            beyond = r["peak_bytes_beyond_gradients"]
            cells = [f"{r['seconds']:.3g}", f"{r['peak_bytes'] / 2**30:.2f}", f"{beyond / 2**30:.2f}"]
            lines.append(f"| {r['name']} | {' | '.join(cells)} | {beyond / plain:.1%} |")
        left_out = [f"{s['case']}: {s['reason']}" for s in result["skipped"]]
        left_out += [f"{name}: not installed" for name in result["not_installed"]]
        left_out += [
            f"{r['name']} at {tuple(r['shape'])}: {r['failed']}"
            for rows in result["cases"].values()
            for r in rows
            if "failed" in r
        ]
        lines += ["", "Left out: " + "; ".join(left_out) + "." if left_out else "", ""]
    if "cuda" not in measured:
        lines += [
            "**No figure of a GPU exists yet.** `python benchmarks/loss.py --device cuda` adds them here.",
            "",
        ]
    put_in_page("loss", lines)


def draw() -> None:
    """Chart time relative to ours, by shape and contestant."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    measured, families = results(), ("softmax", "focal", "softmax_focal")
    figure, axes = plt.subplots(len(measured), 3, figsize=(11, 3.4 * len(measured)), squeeze=False)
    colours = {"ours": "#1b4f72", "ours, torch": "#85c1e9", "ours, fused": "#2e86c1"} | {
        "torch cross_entropy": "#7f8c8d",
        "balanced-loss": "#c0392b",
        "kornia": "#e67e22",
        "torchvision": "#8e44ad",
        "liger-kernel": "#27ae60",
    }
    for (device, result), line in zip(measured.items(), axes, strict=True):
        rows = [
            r for rs in result["cases"].values() for r in rs if "failed" not in r and r["dtype"] == "float32"
        ]
        for family, axis in zip(families, line, strict=True):
            mine = [r for r in rows if r["loss"] == family]
            shapes = list(dict.fromkeys(tuple(r["shape"]) for r in mine))
            names = list(dict.fromkeys(r["name"] for r in mine))
            width = 0.8 / max(1, len(names))
            for i, name in enumerate(names):
                points = [
                    (shapes.index(tuple(r["shape"])), r["times_ours"]) for r in mine if r["name"] == name
                ]
                axis.bar(
                    [x + (i - (len(names) - 1) / 2) * width for x, _ in points],
                    [t for _, t in points],
                    width,
                    label=name,
                    color=colours.get(name),
                )
            axis.axhline(1, color="black", linewidth=0.6)
            axis.set_yscale("log")
            axis.set_yticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
            axis.minorticks_off()
            axis.set_xticks(
                range(len(shapes)), ["x".join(map(str, s)) for s in shapes], rotation=30, ha="right"
            )
            axis.set_title(f"{family.replace('_', ' ')}, {device}")
            axis.legend(fontsize=7)
        line[0].set_ylabel("time / ours (log)")
    figure.tight_layout()
    figure.savefig(CHART, dpi=110)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seconds", type=float, help="of measuring per shape and loss; default 3, on cuda 1")
    parser.add_argument("--head", action="store_true", help="only the last layer with its loss")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device; run without --device for the CPU")
    RESULTS.mkdir(parents=True, exist_ok=True)
    if options.head:
        run_head(options.device)
        write_page()
        return
    run(options.device, options.seconds or (3.0 if options.device == "cpu" else 1.0))
    write_page()
    draw()


if __name__ == "__main__":
    main()
