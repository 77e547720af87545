"""CIFAR: small files in both official layouts, hostile pickles, downloads from a local server, real data."""

import hashlib
import http.server
import io
import os
import pickle
import struct
import tarfile
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from longtail import datasets
from longtail.datasets import DownloadError, cifar10, cifar20, cifar100, download, load
from longtail.datasets.fetch import Archive, _Part, fetch
from longtail.datasets.pickles import read_pickle
from longtail.training import recipes

NAMES10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FINE, COARSE = [f"fine_{i}" for i in range(100)], [f"coarse_{i}" for i in range(20)]
TRAIN10 = [f"data_batch_{i}" for i in range(1, 6)]


# writers of both layouts


class Python2(pickle._Pickler):
    """Writes strings as Python 2 did, which wrote the official files."""

    dispatch = pickle._Pickler.dispatch.copy()

    def string(self, value):
        raw = value if isinstance(value, bytes) else value.encode("latin1")
        short = len(raw) < 256
        head = pickle.SHORT_BINSTRING + bytes([len(raw)]) if short else pickle.BINSTRING
        self.write((head if short else head + struct.pack("<i", len(raw))) + raw)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = string


def python2(value):
    out = io.BytesIO()
    Python2(out, protocol=2).dump(value)
    return out.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


PICKLERS = {
    "python 2": python2,
    **{f"protocol {n}": lambda value, n=n: pickle.dumps(value, protocol=n) for n in (2, 3, 4, 5)},
}


def records(seed, count, classes):
    """Label bytes, one column for each entry of ``classes``, and pixels."""
    draw = np.random.default_rng(seed)
    labels = np.stack([np.arange(count) % c for c in classes], axis=1).astype(np.uint8)
    return labels, draw.integers(0, 256, (count, 3072), dtype=np.uint8)


def write10(root, count=12, pickler=python2):
    """Both layouts of a tiny CIFAR-10; returns its training and test images and labels."""
    py, binary = root / "cifar-10-batches-py", root / "cifar-10-batches-bin"
    parts = []
    for seed, name in enumerate([*TRAIN10, "test_batch"]):
        labels, pixels = records(seed, count, [10])
        entry = {"batch_label": name, "labels": labels[:, 0].tolist(), "data": pixels, "filenames": ["x.png"]}
        put(py / name, pickler(entry))
        put(binary / f"{name}.bin", np.concatenate([labels, pixels], axis=1).tobytes())
        parts.append((pixels.reshape(-1, 3, 32, 32), labels[:, 0]))
    put(py / "batches.meta", pickler({"label_names": NAMES10, "num_vis": 3072}))
    put(binary / "batches.meta.txt", ("\n".join(NAMES10) + "\n\n").encode())
    return [np.concatenate(x) for x in zip(*parts[:5], strict=True)], parts[5]


def write100(root, train=200, test=100):
    py, binary = root / "cifar-100-python", root / "cifar-100-binary"
    found = {}
    for seed, (name, count) in enumerate({"train": train, "test": test}.items()):
        labels, pixels = records(seed, count, [20, 100])
        coarse, fine = labels.T.tolist()
        put(py / name, python2({"data": pixels, "coarse_labels": coarse, "fine_labels": fine}))
        put(binary / f"{name}.bin", np.concatenate([labels, pixels], axis=1).tobytes())
        found[name] = pixels.reshape(-1, 3, 32, 32), labels
    put(py / "meta", python2({"fine_label_names": FINE, "coarse_label_names": COARSE}))
    put(binary / "fine_label_names.txt", "\n".join(FINE).encode())
    put(binary / "coarse_label_names.txt", "\n".join(COARSE).encode())
    return found


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def check(data, name, train, test, names):
    assert data.name == name
    assert data.class_names == tuple(names)
    for split, (images, labels) in ((data.train, train), (data.test, test)):
        assert (split.inputs.dtype, split.targets.dtype) == (np.uint8, np.int64)
        assert split.inputs.flags.c_contiguous
        np.testing.assert_array_equal(split.inputs, images)
        np.testing.assert_array_equal(split.targets, labels)


# layouts


@pytest.mark.parametrize("pickler", PICKLERS.values(), ids=PICKLERS)
def test_cifar10_in_the_python_layout(tmp_path, pickler):
    train, test = write10(tmp_path, pickler=pickler)
    check(cifar10(tmp_path / "cifar-10-batches-py", verify=False), "cifar10", train, test, NAMES10)


def test_cifar10_in_the_binary_layout(tmp_path):
    train, test = write10(tmp_path)
    check(cifar10(tmp_path / "cifar-10-batches-bin", verify=False), "cifar10", train, test, NAMES10)


@pytest.mark.parametrize("folder", ["cifar-100-python", "cifar-100-binary"])
def test_cifar100_and_its_coarse_classes(tmp_path, folder):
    found = write100(tmp_path)
    for loader, name, column, names in ((cifar100, "cifar100", 1, FINE), (cifar20, "cifar20", 0, COARSE)):
        data = loader(tmp_path / folder, verify=False)
        train, test = ((found[part][0], found[part][1][:, column]) for part in ("train", "test"))
        check(data, name, train, test, names)


def test_labels_pickled_as_an_array(tmp_path):
    train, test = write10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    entry = read_pickle(path)
    put(
        path,
        pickle.dumps({"data": np.asfortranarray(entry["data"]), "labels": np.array(entry["labels"], ">i8")}),
    )
    check(cifar10(tmp_path, verify=False), "cifar10", train, test, NAMES10)


def test_a_folder_or_the_one_it_lies_in(tmp_path, monkeypatch):
    write10(tmp_path)
    monkeypatch.delenv("LONGTAIL_DATA", raising=False)
    expected = cifar10(tmp_path, verify=False).train.inputs
    renamed = tmp_path / "mine"
    (tmp_path / "cifar-10-batches-bin").rename(renamed)
    for root in (str(tmp_path), renamed):
        np.testing.assert_array_equal(cifar10(root, verify=False).train.inputs, expected)
    # the environment variable comes before the cache, an argument before both
    cache = tmp_path / "cache"
    write10(cache / "longtail", count=3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    assert len(cifar10(verify=False).test) == 3
    monkeypatch.setenv("LONGTAIL_DATA", str(tmp_path))
    assert len(cifar10(verify=False).test) == 12
    assert len(cifar10(cache / "longtail", verify=False).test) == 3


def test_a_home_folder_that_is_not_there_is_named(monkeypatch):
    monkeypatch.delenv("LONGTAIL_DATA", raising=False)
    wrong = "must be a folder, got '~no-such-user/data', and there is no such home folder"
    with pytest.raises(ValueError, match=f"root {wrong}"):
        cifar10("~no-such-user/data")
    monkeypatch.setenv("XDG_CACHE_HOME", "~no-such-user/data")
    with pytest.raises(ValueError, match=f"XDG_CACHE_HOME {wrong}"):
        cifar10()
    monkeypatch.setenv("LONGTAIL_DATA", "~no-such-user/data")
    with pytest.raises(ValueError, match=f"LONGTAIL_DATA {wrong}"):
        cifar10()


def test_a_complete_layout_is_taken_before_a_partial_one(tmp_path):
    train, test = write10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    check(cifar10(tmp_path, verify=False), "cifar10", train, test, NAMES10)


# what is missing, damaged or of another kind


def test_a_missing_folder_says_how_to_get_the_data(tmp_path, monkeypatch):
    with pytest.raises(
        FileNotFoundError, match=r"root is .*has no cifar-10-batches-py or .*download\('cifar10'"
    ):
        cifar10(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"root is .*nowhere, which is not there"):
        cifar20(tmp_path / "nowhere")
    monkeypatch.setenv("LONGTAIL_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"LONGTAIL_DATA is .*datasets\.download\('cifar100'\)"):
        load("cifar100")
    # a folder of images, such as other data sets have, is no CIFAR-100
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(FileNotFoundError, match="has no cifar-100-python"):
        load("cifar100")


def test_a_partial_folder_names_what_is_missing(tmp_path):
    write10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "batches.meta").unlink()
    (tmp_path / "cifar-10-batches-bin" / "data_batch_4.bin").unlink()
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"a part of CIFAR-10, but not 'batches\.meta'; get it with"):
        cifar10(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"but not 'data_batch_4\.bin', 'test_batch\.bin'; get it"):
        cifar10(tmp_path / "cifar-10-batches-bin")


def test_a_wrong_number_of_images(tmp_path):
    write10(tmp_path)
    for folder in ("cifar-10-batches-py", "cifar-10-batches-bin"):
        with pytest.raises(
            ValueError, match=r"data_batch_1\S* has 12 images, the official file 10000; .*verify=False"
        ):
            cifar10(tmp_path / folder)


def test_a_batch_cut_short(tmp_path):
    write10(tmp_path)
    for name, message in (
        ("cifar-10-batches-bin/data_batch_5.bin", "has 36875 bytes, not a whole number of 3073-byte records"),
        ("cifar-10-batches-py/data_batch_5", "is no pickle or a damaged one"),
    ):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ValueError, match=f"data_batch_5\\S* {message}"):
            cifar10(path.parent, verify=False)
        path.write_bytes(b"")
        with pytest.raises(ValueError, match="data_batch_5"):
            cifar10(path.parent, verify=False)


def test_a_label_out_of_range(tmp_path):
    write10(tmp_path)
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    raw = bytearray(path.read_bytes())
    raw[3073] = 10
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"test_batch\.bin has a label 10 in 'labels', CIFAR-10 has 0 to 9"):
        cifar10(path.parent, verify=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": None}, r"no 'data' of uint8 and shape \(N, 3072\)"),
        ({"data": np.zeros((4, 3071), np.uint8)}, "no 'data' of uint8"),
        ({"data": np.zeros((4, 3072), np.int16)}, "no 'data' of uint8"),
        ({"data": np.zeros((0, 3072), np.uint8)}, "no 'data' of uint8"),
        ({"labels": None}, "no 'labels' of 4 integers from 0 to 9"),
        ({"labels": [0, 1, 2]}, "no 'labels' of 4 integers"),
        ({"labels": [0, 1, 2, "3"]}, "no 'labels' of 4 integers"),
        ({"labels": [0, 1, 2, -1]}, "no 'labels' of 4 integers"),
        ({"labels": [0, 1, 2, 256]}, "no 'labels' of 4 integers"),
        ({"labels": [0, 1, 2, 10]}, "a label 10"),
    ],
)
def test_a_pickle_of_something_else(tmp_path, changes, message):
    write10(tmp_path, count=4)
    good = {"data": np.zeros((4, 3072), np.uint8), "labels": [0, 1, 2, 3]}
    put(tmp_path / "cifar-10-batches-py" / "data_batch_1", python2(good | changes))
    with pytest.raises(ValueError, match=f"data_batch_1 has {message}"):
        cifar10(tmp_path / "cifar-10-batches-py", verify=False)


def test_class_names_are_complete(tmp_path):
    write10(tmp_path)
    put(tmp_path / "cifar-10-batches-bin" / "batches.meta.txt", b"cat\ndog\n")
    put(tmp_path / "cifar-10-batches-py" / "batches.meta", python2({"label_names": [*NAMES10[:9], "cat"]}))
    for folder in ("cifar-10-batches-bin", "cifar-10-batches-py"):
        with pytest.raises(ValueError, match=r"batches\.meta\S* does not name the 10 classes of CIFAR-10"):
            cifar10(tmp_path / folder, verify=False)


@pytest.fixture(scope="module")
def full100(tmp_path_factory):
    """CIFAR-100 in its official size, the pixels all black: 184 MB of zeros, sparse on the disk."""
    root = tmp_path_factory.mktemp("full100")
    write100(root)
    for name, count in {"train": 50000, "test": 10000}.items():
        path = root / "cifar-100-binary" / f"{name}.bin"
        path.unlink()
        whole = np.memmap(path, np.uint8, "w+", shape=(count, 3074))
        whole[:, 1] = np.arange(count) % 100
        whole[:, 0] = whole[:, 1] // 5
        whole.flush()
    return root / "cifar-100-binary"


def test_cifar100_has_official_class_sizes(full100):
    data = cifar100(full100)
    assert set(data.class_counts) == {500}
    assert set(np.bincount(data.test.targets)) == {100}


@pytest.mark.parametrize(
    ("column", "changes", "message"),
    [
        (1, {0: 1}, "499 training images of class 0 in 'fine_labels', CIFAR-100 has 500"),
        (0, {0: 1}, "2499 training images of class 0 in 'coarse_labels', CIFAR-100 has 2500"),
        (0, {0: 1, 5: 0}, "a fine class in more than one coarse class"),
    ],
)
def test_cifar100_labels_that_cannot_be(full100, column, changes, message):
    rows, labels = list(changes), list(changes.values())
    train = np.memmap(full100 / "train.bin", np.uint8, "r+", shape=(50000, 3074))
    before = train[rows, column].copy()
    train[rows, column] = labels
    try:
        with pytest.raises(ValueError, match=message):
            cifar20(full100)
    finally:
        train[rows, column] = before


def test_pickled_cifar100_of_another_md5_is_a_warning(tmp_path):
    folder = tmp_path / "cifar-100-python"
    for name, count in {"train": 50000, "test": 10000}.items():
        fine = np.arange(count) % 100
        entry = {"data": np.zeros((count, 3072), np.uint8), "fine_labels": fine, "coarse_labels": fine // 5}
        put(folder / name, pickle.dumps(entry))
    put(folder / "meta", python2({"fine_label_names": FINE, "coarse_label_names": COARSE}))
    with pytest.warns(UserWarning, match="has md5 .* the official file") as caught:
        data = cifar20(folder)
    assert [Path(w.filename).name for w in caught] == ["test_cifar.py"] * 2
    assert "16019d7e3df5f24257cddd939b257f8d" in str(caught[0].message)
    assert set(data.class_counts) == {2500}


# hostile pickles


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


ARRAY = b"cnumpy\nndarray\n"
HOSTILE = {
    "a command": (
        lambda mark: pickle.dumps({"data": Calls(os.system, f"touch {mark}")}, 2),
        r"asks for \w+\.system",
    ),
    "eval": (
        lambda mark: pickle.dumps(Calls(eval, f"__import__('pathlib').Path({str(mark)!r}).touch()"), 4),
        r"asks for builtins\.eval",
    ),
    "inside a list": (
        lambda mark: python2({"labels": [0, [Calls(os.mkdir, str(mark))]]}),
        r"asks for \w+\.mkdir",
    ),
    "a class": (lambda _: pickle.dumps({"data": Path("x")}), "asks for pathlib"),
    "an attribute of a stand-in": (
        lambda _: b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
        r"asks for numpy\.ndarray\.__class__",
    ),
    "a float array": (lambda _: pickle.dumps({"data": np.zeros(3)}), "an array of type 'f8'"),
    "an array of objects": (lambda _: pickle.dumps({"data": np.array([{}])}), "an array of type 'O8'"),
    "another object outside": (lambda _: b"Pnumber 7\n.", "an object outside the file"),
    "an extension": (lambda _: b"\x80\x02\x82\x01.", "the registered extension 1"),
    "state of a class": (lambda _: ARRAY + b"}b.", "damaged"),
    "attributes of an array": (lambda _: ARRAY + b")R(}Vx\nI1\nstb.", "damaged"),
    "an array of a false shape": (
        lambda _: pickle.dumps({"data": np.zeros(4, np.uint8)}, 2).replace(b"K\x04\x85", b"K\x05\x85"),
        "damaged",
    ),
    "a memo of 2^31 entries": (lambda _: b"\x80\x02}r\xff\xff\xff\x7f.", None),
    "no pickle": (lambda _: b"GIF89a", "no pickle or a damaged one"),
    "nothing": (lambda _: b"", "no pickle or a damaged one"),
    "a list": (lambda _: pickle.dumps([1]), "holds a list in place of a dict"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_does_nothing(tmp_path, name):
    make, message = HOSTILE[name]
    write10(tmp_path)
    mark, path = tmp_path / "mark", tmp_path / "cifar-10-batches-py" / "data_batch_2"
    put(path, make(mark))
    with pytest.raises(ValueError, match=f"data_batch_2 .*{message or ''}") as caught:
        cifar10(path.parent, verify=False)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_the_marks_above_would_be_made_by_an_ordinary_unpickler(tmp_path):
    for name in ("a command", "eval", "inside a list"):
        mark = tmp_path / name.replace(" ", "_")
        pickle.loads(HOSTILE[name][0](mark))
        assert mark.exists()


@given(st.integers(0, 500), st.integers(1, 255), st.sampled_from(["python 2", "protocol 2", "protocol 5"]))
def test_any_damaged_byte_is_an_error_or_other_data(tmp_path_factory, place, change, pickler):
    path = tmp_path_factory.mktemp("damaged") / "batch"
    content = {"labels": [1, 2, 300], "data": np.arange(6, dtype=np.uint8).reshape(2, 3), "filenames": [b"a"]}
    raw = bytearray(PICKLERS[pickler](content))
    raw[place % len(raw)] ^= change
    path.write_bytes(raw)
    try:
        assert isinstance(read_pickle(path), dict)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017  (both outcomes are right)


# downloads


class Server:
    """Serves one file on a local port, with the faults that the internet has."""

    def __init__(self, content):
        self.content, self.ranges, self.cut, self.whole = content, [], None, False
        self.target, self.silent = "/tiny.tar.gz", False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked = self.headers.get("Range")
                outer.ranges.append(asked)
                start = 0 if outer.whole or asked is None else int(asked.split("=")[1].split("-")[0])
                if self.path == "/absent":
                    self.send_error(404)
                    return
                if self.path == "/moved":
                    body = b"it is elsewhere"
                    self.send_response(302)
                    self.send_header("Location", outer.target)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                    return
                total = len(outer.content)
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
                if not outer.silent:
                    self.send_header("Content-Length", str(total - start))
                self.end_headers()
                self.wfile.write(outer.content[start : outer.cut])

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.http.server_port
        self.url = f"http://127.0.0.1:{self.port}/tiny.tar.gz"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def tarball(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def describe(content, members=("a", "b"), url="https://example.org/tiny.tar.gz"):
    md5, sha256 = hashlib.md5(content).hexdigest(), hashlib.sha256(content).hexdigest()
    return Archive(url, len(content), md5, sha256, "tiny", tuple(members))


@pytest.fixture
def server(rng):
    # noise does not compress, so there is something to interrupt
    server = Server(tarball({"tiny/a": rng.bytes(600_000), "tiny/b": b"second", "tiny/other": b"unwanted"}))
    yield server
    server.close()


@pytest.fixture
def archive(server):
    return describe(server.content, url=server.url)


def test_download_unpacks_what_is_wanted(server, archive, tmp_path):
    seen = []
    folder = fetch(archive, tmp_path / "new", progress=lambda done, total: seen.append((done, total)))
    assert folder == tmp_path / "new" / "tiny"
    assert {p.name for p in folder.iterdir()} == {"a", "b"}
    assert (folder / "b").read_bytes() == b"second"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["tiny"]  # neither archive nor scratch is left
    assert seen == sorted(seen)
    assert seen[-1] == (archive.size, archive.size)
    # what is there is kept, without a connection
    (folder / "b").write_bytes(b"mine")
    assert fetch(archive, tmp_path / "new") == folder
    assert (folder / "b").read_bytes() == b"mine"
    assert len(server.ranges) == 1


@pytest.mark.parametrize("whole", [False, True], ids=["server with ranges", "server without"])
def test_an_interrupted_download_goes_on(server, archive, tmp_path, whole):
    server.cut = 300_000
    with pytest.raises(
        DownloadError, match=f"stopped at 300000 of {archive.size} bytes .*it goes on from there"
    ):
        fetch(archive, tmp_path)
    assert (tmp_path / "tiny.tar.gz.part").stat().st_size == 300_000
    assert not (tmp_path / "tiny").exists()
    server.cut, server.whole = None, whole
    seen = []
    fetch(archive, tmp_path, progress=lambda done, _: seen.append(done))
    assert server.ranges == ["bytes=0-", "bytes=300000-"]
    assert (seen[0] < 300_000) == whole
    assert len((tmp_path / "tiny" / "a").read_bytes()) == 600_000


def test_a_download_of_other_content_is_refused_and_can_be_repeated(server, archive, tmp_path):
    server.content = server.content[:-1] + b"?"
    with pytest.raises(DownloadError, match=r"has md5 .*it is damaged or another file"):
        fetch(archive, tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DownloadError, match="has sha256"):
        fetch(replace(archive, md5=hashlib.md5(server.content).hexdigest()), tmp_path)


def test_a_file_of_another_size_is_not_even_downloaded(server, archive, tmp_path):
    server.content += b"more"
    with pytest.raises(
        DownloadError, match=rf"has {archive.size + 4} bytes, tiny\.tar\.gz has {archive.size}"
    ):
        fetch(archive, tmp_path)


@pytest.mark.parametrize("left", [b"x" * 900_000, b"x" * 1000], ids=["longer", "of another file"])
def test_a_strange_partial_file_does_no_harm(archive, tmp_path, left):
    put(tmp_path / "tiny.tar.gz.part", left)
    if len(left) < archive.size:
        with pytest.raises(DownloadError, match="has md5"):
            fetch(archive, tmp_path)
    assert (fetch(archive, tmp_path) / "b").read_bytes() == b"second"


def test_two_processes_do_not_write_one_file(archive, tmp_path):
    busy = pytest.raises(DownloadError, match="is being downloaded by another process; wait")
    with FileLock(tmp_path / "tiny.tar.gz.lock"), busy:
        fetch(archive, tmp_path)
    fetch(archive, tmp_path)


def test_offline_says_what_to_fetch_and_where_to_put_it(server, archive, tmp_path):
    server.close()
    with pytest.raises(DownloadError) as caught:
        fetch(archive, tmp_path)
    text = str(caught.value)
    for part in (archive.url, archive.md5, str(archive.size), str(tmp_path), "refused", "run this again"):
        assert part in text
    assert "\n" not in text
    # which then works without a connection, and leaves the given archive alone
    put(tmp_path / "tiny.tar.gz", server.content)
    assert (fetch(archive, tmp_path) / "b").read_bytes() == b"second"
    assert (tmp_path / "tiny.tar.gz").exists()


def test_a_wrong_archive_put_there_by_hand_is_named_and_kept(archive, tmp_path):
    put(tmp_path / "tiny.tar.gz", b"not it")
    with pytest.raises(
        DownloadError, match=rf"tiny\.tar\.gz has size 6, the official tiny\.tar\.gz {archive.size}"
    ):
        fetch(archive, tmp_path)
    assert (tmp_path / "tiny.tar.gz").read_bytes() == b"not it"


def test_other_failures_are_one_line(server, archive, tmp_path):
    with pytest.raises(DownloadError, match=r"cannot reach .*/absent .*404"):
        fetch(archive, tmp_path, url=server.url.replace("tiny.tar.gz", "absent"))
    with pytest.raises(ValueError, match="url must start with https:// or http://, got 'file:///etc/passwd'"):
        fetch(archive, tmp_path, url="file:///etc/passwd")
    put(tmp_path / "file", b"")
    with pytest.raises(DownloadError, match=r"cannot write tiny\.tar\.gz under .*/file"):
        fetch(archive, tmp_path / "file")


@pytest.mark.parametrize("target", ["ftp://example.org/x", "file:///etc/passwd", "gopher://example.org/x"])
def test_a_redirect_leads_to_the_web_alone(server, archive, tmp_path, target):
    moved = server.url.replace("tiny.tar.gz", "moved")
    assert (fetch(archive, tmp_path / "found", url=moved) / "b").read_bytes() == b"second"
    server.target = target
    with pytest.raises(DownloadError, match=rf"moved leads to {target}, without .* https; give an address"):
        fetch(archive, tmp_path / "refused", url=moved)
    assert not (tmp_path / "refused" / "tiny").exists()


def test_a_redirect_from_https_stays_encrypted():
    answer = requests.Response()
    answer.status_code, answer.url = 302, "https://example.org/a"
    for target, refused in (("http://example.org/b", True), ("https://other.org/b", False), ("/b", False)):
        answer.headers["Location"] = target
        part = _Part(describe(b"x"), answer.url, io.BytesIO(), None)
        with pytest.raises(DownloadError, match="without the encryption") if refused else nullcontext():
            part.start(answer)


def test_a_server_that_sends_without_end_is_stopped(server, archive, tmp_path):
    server.content, server.silent = server.content * 3, True
    with pytest.raises(DownloadError, match=rf"sends more than the {archive.size} bytes"):
        fetch(archive, tmp_path)
    assert (tmp_path / "tiny.tar.gz.part").stat().st_size <= archive.size


@pytest.mark.parametrize("fault", ["absent", "moved", "longer", "size"])
def test_what_is_refused_leaves_no_open_connection(server, archive, tmp_path, fault):
    server.target, server.silent = "ftp://example.org/x", fault == "longer"
    server.content *= 1 + (fault in ("longer", "size"))
    url = server.url.replace("tiny.tar.gz", fault) if fault in ("absent", "moved") else None
    with pytest.raises(DownloadError) as refused:  # the error is kept, and with it what it refers to
        fetch(archive, tmp_path, url=url)
    ours = [c for c in psutil.Process().net_connections("tcp") if c.raddr and c.raddr.port == server.port]
    assert ours == [], refused


def test_an_archive_cannot_write_elsewhere(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    files = {
        "../outside": b"x",
        "tiny/../../outside": b"x",
        str(tmp_path / "outside"): b"x",
        "tiny/a": str(secret),  # a link in place of a wanted file
        "tiny/b": b"second",
    }
    content = tarball(files)
    put(tmp_path / "root" / "tiny.tar.gz", content)
    with pytest.raises(DownloadError, match="lacks tiny/a; remove it"):
        fetch(describe(content), tmp_path / "root")
    assert {p.name for p in tmp_path.iterdir()} == {"root", "secret"}
    assert [p.name for p in (tmp_path / "root").iterdir()] == ["tiny.tar.gz"]
    content = b"\x1f\x8b no gzip"
    put(tmp_path / "root" / "tiny.tar.gz", content)
    with pytest.raises(DownloadError, match="cannot be unpacked"):
        fetch(describe(content), tmp_path / "root")


def test_download_by_name(server, tmp_path, monkeypatch):
    with pytest.raises(DownloadError, match=r"cifar-10-python\.tar\.gz has 170498071; give the address"):
        download("cifar10", tmp_path, url=server.url)
    monkeypatch.setenv("LONGTAIL_DATA", str(tmp_path))
    write100(tmp_path)
    # both names of one archive, complete already
    assert download("cifar20") == download("cifar100") == tmp_path / "cifar-100-python"
    with pytest.raises(TypeError, match="root must be a path, got int 3"):
        download("cifar10", 3)


# by name


def test_load_by_name(tmp_path):
    assert load("digits").name == "digits"
    with pytest.raises(ValueError, match="root is 'x', but 'digits' is built in and reads no files"):
        load("digits", "x")
    with pytest.raises(ValueError, match=r"'cifar'.*did you mean 'cifar"):
        load("cifar", tmp_path)
    with pytest.raises(FileNotFoundError, match="cifar-10-batches-py"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar20", "cifar100"])
def test_the_default_recipe_is_the_papers(name):
    assert recipes.default(name) == recipes.paper_cifar(name)


# the real one


@pytest.fixture(scope="module")
def real():
    if not os.environ.get("LONGTAIL_DATA"):
        pytest.skip("LONGTAIL_DATA does not name a folder with the real CIFAR-10")
    return Path(os.environ["LONGTAIL_DATA"])


@pytest.mark.parametrize("folder", ["cifar-10-batches-py", "cifar-10-batches-bin"])
def test_real_cifar10(real, folder):
    if not (real / folder).is_dir():
        pytest.skip(f"LONGTAIL_DATA has no {folder}")
    data = load("cifar10", real / folder)
    assert data.class_names == tuple(NAMES10)
    assert data.class_counts.tolist() == [5000] * 10
    assert np.bincount(data.test.targets).tolist() == [1000] * 10
    # the well-known means of the channels
    means = [data.train.inputs[:, channel].mean() / 255 for channel in range(3)]
    assert means == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5)
    digest = (
        hashlib.sha256(data.train.inputs.data).hexdigest(),
        hashlib.sha256(data.test.inputs.data).hexdigest(),
    )
    assert digest == REAL_SHA256
    tail, _ = data.long_tailed(100)
    assert len(tail.train) == 12406


@pytest.mark.parametrize(
    "file", ["cifar-10-batches-py/data_batch_3", "cifar-10-batches-bin/data_batch_3.bin"]
)
def test_one_flipped_bit_in_real_data_is_found(real, tmp_path, file):
    source = (real / file).parent
    if not source.is_dir():
        pytest.skip(f"LONGTAIL_DATA has no {source.name}")
    for other in source.iterdir():
        (tmp_path / other.name).symlink_to(other)
    path = tmp_path / Path(file).name
    raw = bytearray(path.read_bytes())
    raw[20_000_000] ^= 1
    path.unlink()
    path.write_bytes(raw)
    with pytest.raises(
        ValueError, match=r"data_batch_3\S* is damaged: the sha256 .*official batch's bbe8596564c0"
    ):
        datasets.load("cifar10", tmp_path)


REAL_SHA256 = (
    "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
    "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
)
