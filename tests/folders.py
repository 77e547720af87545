"""Run folders as earlier versions left them, and ways to damage one."""

import json
from pathlib import Path


def unseal(folder, without=()):
    """Make a folder one of an earlier version, which had no manifest, and knew less of its making."""
    (Path(folder) / "manifest.json").unlink()
    file = Path(folder) / "environment.json"
    about = json.loads(file.read_text())
    kept = {name: value for name, value in about.items() if name not in ("manifest", *without)}
    file.write_text(json.dumps(kept))


def flip(file, at, bit=0):
    """Turn one bit of a file over."""
    data = bytearray(Path(file).read_bytes())
    data[at] ^= 1 << bit
    Path(file).write_bytes(bytes(data))
