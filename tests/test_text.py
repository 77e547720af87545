"""Features of a table's text: the plain way's numbers, TF-IDF of the training rows alone, what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

import transformers
from safetensors.torch import load_file, save_file
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import longtail
from longtail import cli
from longtail.datasets.features import Features
from longtail.training import backbones, texts

WORDS = ["the", "a", "cat", "lynx", "owl", "purrs", "hunts", "at", "night", "in", "snow", "deep"]
NOTES = [
    ("cat", "the cat purrs", "v1"),
    ("cat", "a cat", "v1"),
    ("cat", "the cat purrs at night in the deep deep snow", "v2"),
    ("cat", "cat", "v3"),
    ("lynx", "the lynx hunts in snow", "v4"),
    ("lynx", "a lynx", "v4"),
    ("lynx", "a lynx", "v5"),
]


def write(path, rows=NOTES, header="animal,note,visit"):
    lines = [",".join(f'"{cell}"' for cell in row) for row in rows]
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def tokenizer(folder, **changes):
    """A tokenizer of whole words, as BERT's: [CLS] words [SEP]."""
    known = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    made = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    given = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **{**given, **changes}).save_pretrained(
        folder
    )


SMALL = {"vocab_size": 16, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def encoder(tmp_path):
    torch.manual_seed(0)
    config = transformers.BertConfig(**SMALL, intermediate_size=32, max_position_embeddings=10)
    with backbones.quiet(transformers):
        transformers.BertModel(config).save_pretrained(tmp_path / "encoder")
    tokenizer(tmp_path / "encoder")
    return str(tmp_path / "encoder")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache" / "longtail" / "features"


@pytest.fixture
def notes(tmp_path):
    return write(tmp_path / "notes.csv")


OPTIONS = {"text": "note", "label": "animal"}


def plainly(folder, given, longest):
    """What a few lines of transformers give, a text at a time: nothing is padded."""
    with backbones.quiet(transformers):
        model = transformers.AutoModel.from_pretrained(folder).eval()
        words = transformers.AutoTokenizer.from_pretrained(folder)
    rows = []
    with torch.inference_mode():
        for text in given:
            ids = words(text, return_tensors="pt", truncation=True, max_length=longest)["input_ids"]
            rows.append(model(input_ids=ids)[0][0].mean(0).numpy())
    return np.array(rows)


# ---- by a model


@pytest.mark.parametrize("batch_size", [2, 32])
def test_a_text_is_the_mean_over_its_tokens_whatever_its_batch(batch_size, encoder, notes):
    features = longtail.embed(notes, encoder, **OPTIONS, batch_size=batch_size)
    expected = plainly(encoder, [text for _, text, _ in NOTES], 10)
    np.testing.assert_allclose(features.X, expected, rtol=1e-4, atol=1e-5)
    assert features.X.dtype == np.float32
    assert features.class_names == ("cat", "lynx")
    assert features.y.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert (features.about["tokens"], features.about["text"]) == (10, "note")


def test_texts_are_cut_where_sentence_transformers_cut_them(encoder, notes):
    Path(encoder, "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    features = longtail.embed(notes, encoder, **OPTIONS)
    np.testing.assert_allclose(
        features.X, plainly(encoder, [t for _, t, _ in NOTES], 5), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["gpt2", "t5", "roberta"])
def test_other_kinds_of_networks(kind, notes, tmp_path):
    """One without a token that pads, one with a decoder, and one whose positions begin at 2."""
    configs = {
        "gpt2": lambda: transformers.GPT2Config(vocab_size=16, n_embd=16, n_layer=1, n_head=2,
                                                n_positions=12, bos_token_id=2, eos_token_id=3),
        "t5": lambda: transformers.T5Config(vocab_size=16, d_model=16, d_ff=32, num_layers=1, num_heads=2,
                                            d_kv=8, pad_token_id=0, decoder_start_token_id=0),
        "roberta": lambda: transformers.RobertaConfig(**SMALL, intermediate_size=32,
                                                      max_position_embeddings=12, pad_token_id=0),
    }  # fmt: skip
    folder = tmp_path / kind
    with backbones.quiet(transformers):
        transformers.AutoModel.from_config(configs[kind]()).save_pretrained(folder)
    tokenizer(folder, **({"pad_token": None, "eos_token": "[SEP]"} if kind == "gpt2" else {}))
    together = longtail.embed(notes, str(folder), **OPTIONS).X
    alone = longtail.embed(notes, str(folder), **OPTIONS, batch_size=1, cache=tmp_path / "alone").X
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    assert len(np.unique(together.round(4), axis=0)) == 6


def test_a_text_is_computed_once_and_a_stopped_run_goes_on(encoder, notes, tmp_path, monkeypatch, own_cache):
    seen, plain = [], backbones.TextBackbone.features

    def features(self, batch, device):
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(list(batch))
        return plain(self, batch, device)

    whole = longtail.embed(notes, encoder, **OPTIONS, cache=tmp_path / "whole", batch_size=2).X
    monkeypatch.setattr(backbones.TextBackbone, "features", features)
    with pytest.raises(KeyboardInterrupt):  # two of its four batches look whether the model is sound
        longtail.embed(notes, encoder, **OPTIONS, batch_size=2)
    assert [len(batch) for batch in seen] == [2, 2, 2, 2]
    monkeypatch.setattr(backbones.TextBackbone, "features", lambda *x: seen.append([*x[1]]) or plain(*x))
    again = longtail.embed(notes, encoder, **OPTIONS, batch_size=2).X
    np.testing.assert_array_equal(again, whole)
    assert [len(batch) for batch in seen] == [2] * 7  # 6 texts, one of them twice in the table
    longtail.embed(write(tmp_path / "other.csv", NOTES[::-1]), encoder, **OPTIONS)
    assert len(seen) == 9


# ---- without a model


def test_tfidf_is_scikit_learns_of_the_training_rows(notes, tmp_path):
    test = write(tmp_path / "test.csv", [("lynx", "the lynx meows", "t1"), ("cat", "cat cat owl", "t2")])
    features = longtail.embed(notes, test=test, groups="visit", **OPTIONS)
    words = TfidfVectorizer().fit([t for _, t, _ in NOTES])
    np.testing.assert_allclose(features.X, words.transform([t for _, t, _ in NOTES]).toarray(), rtol=1e-6)
    tested = words.transform(["the lynx meows", "cat cat owl"]).toarray()
    np.testing.assert_allclose(features.X_test, tested, rtol=1e-6)
    assert features.y_test.tolist() == [1, 0]
    assert features.groups.tolist() == [v for _, _, v in NOTES]
    assert features.groups_test.tolist() == ["t1", "t2"]
    assert features.about["pooling"] == f"TF-IDF of {len(words.vocabulary_)} words"


def test_many_words_are_reduced_and_it_is_said(monkeypatch, notes):
    monkeypatch.setattr(texts, "_WIDEST", 4)
    features = longtail.embed(notes, **OPTIONS)
    counted = TfidfVectorizer(dtype=np.float32).fit_transform([t for _, t, _ in NOTES])
    svd = TruncatedSVD(4, random_state=0).fit(counted)
    np.testing.assert_allclose(features.X, svd.transform(counted), rtol=1e-5, atol=1e-6)
    share = svd.explained_variance_ratio_.sum()
    assert features.about["pooling"].endswith(f"reduced to 4 numbers by SVD, {share:.0%} of the variance")


def test_frames_and_mappings_are_files(notes):
    animal, note, visit = zip(*NOTES, strict=True)
    table = {"animal": [*animal], "note": [*note], "visit": np.array(visit)}
    expected = longtail.embed(notes, groups="visit", **OPTIONS)
    pandas = pytest.importorskip("pandas")
    for given in (table, pandas.DataFrame(table)):
        found = longtail.embed(given, groups="visit", **OPTIONS)
        np.testing.assert_array_equal(found.X, expected.X)
        assert found.y.tolist() == expected.y.tolist()
        assert found.groups.tolist() == expected.groups.tolist()


def test_rows_without_text_are_named_or_left_out(tmp_path):
    rows = [*NOTES[:2], ("cat", " ", "v2"), *NOTES[2:]]
    table = write(tmp_path / "n.csv", rows)
    with pytest.raises(ValueError, match=r"text 'note' of .*n.csv' is empty in 1 of 8 rows, first in row 3"):
        longtail.embed(table, **OPTIONS)
    with pytest.warns(UserWarning, match="is empty in 1 of 8 rows, first in row 3; they are left out"):
        assert len(longtail.embed(table, **OPTIONS, on_error="skip")) == 7


# ---- the command


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["longtail", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code or 0, capsys.readouterr()


def test_the_command_makes_a_file_that_compare_reads(encoder, notes, tmp_path, monkeypatch, capsys):
    options = ("--text", "note", "--label", "animal", "--group", "visit")
    for more, told in (((), "7 rows to train on, 10 features each (TF-IDF of 10 words), 2 classes, 5 groups"),
                       (("--model", encoder), "16 features each (mean over tokens)")):  # fmt: skip
        code, said = run(monkeypatch, capsys, "embed", notes, *options, *more, "-o", tmp_path / "f.npz")
        assert code == 0
        assert told in said.out
    problem = longtail.Problem.from_features(tmp_path / "f.npz")
    assert problem.class_names == ("cat", "lynx")
    assert problem.inputs.shape == (7, 16)
    assert len(set(problem.groups.tolist())) == 5
    np.testing.assert_array_equal(Features.load(tmp_path / "f.npz").X, problem.inputs)


def no_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        Path(folder, name).unlink()


def too_few_words(folder):
    """Its network's table of words ends before the word "deep"."""
    config = transformers.BertConfig(**{**SMALL, "vocab_size": 10}, intermediate_size=32)
    with backbones.quiet(transformers):
        transformers.BertModel(config).save_pretrained(folder)


def not_finite(folder):
    path = Path(folder, "model.safetensors")
    save_file({n: w * float("nan") for n, w in load_file(path).items()}, path, {"format": "pt"})


def of_images(folder):
    config = transformers.ConvNextConfig(depths=[1], hidden_sizes=[8], num_stages=1)
    with backbones.quiet(transformers):
        transformers.ConvNextModel(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_tokenizer, "has a tokenizer without words"),
        (too_few_words, "has a token 15, and its network knows 10"),
        (not_finite, "gives NaN or infinite features"),
        (of_images, "(ConvNextModel) gives no features of text: "),
        (lambda folder: Path(folder, "model.safetensors").unlink(), "has no weights (no .safetensors"),
    ],
)
def test_a_bad_model_is_one_line(damage, message, encoder, notes, tmp_path, monkeypatch, capsys):
    damage(encoder)
    options = ("--text", "note", "--label", "animal", "--model", encoder, "-o", tmp_path / "f.npz")
    code, said = run(monkeypatch, capsys, "embed", notes, *options)
    assert (code, said.err.count("\n")) == (2, 1), said.err
    assert message in said.err
    assert not (tmp_path / "f.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["notes.csv"], "--model is missing; name an image model, or --text COLUMN of a table"),
        (["notes.csv", "--text", "note"], "--text is given without --label; name the columns"),
        (["notes.csv", "--label", "animal"], "--model is missing; name an image model, or --text COLUMN"),
        (["notes.csv", "--text", "nots", "--label", "animal"], "--text 'nots' is no column of 'notes.csv'"),
        (["notes.csv", "--text", "note", "--label", "species"], "'species'"),
        (["notes.csv", "--text", "animal", "--label", "animal"], "is the label's or the groups' column, too"),
        (["notes.csv", "--text", "note", "--label", "animal", "--group", "v"], "--group 'v' is no column"),
        (["none.csv", "--text", "note", "--label", "animal"], "source 'none.csv' is no file"),
        (["notes.csv", "--text", "note", "--label", "animal", "--size", "8"], "size is for images, not"),
        (["photos", "--model", "m", "--test", "notes.csv"], "--test is for tables of texts, with --text"),
        (["one.csv", "--text", "note", "--label", "animal"], "has one value, 'cat'; there is nothing"),
        (["bare.csv", "--text", "note", "--label", "animal"], "is empty in 7 of 7 rows"),
        (["dots.csv", "--text", "note", "--label", "animal"], "no text has a word of two letters"),
        (["notes.csv", "--text", "note", "--label", "animal", "--test", "owl.csv"],
         "'owl.csv' has classes without a training row: 'owl'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(arguments, message, notes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(Path("one.csv"), [("cat", t, v) for _, t, v in NOTES])
    write(Path("bare.csv"), [(a, " ", v) for a, _, v in NOTES])
    write(Path("dots.csv"), [(a, "a . !", v) for a, _, v in NOTES])
    write(Path("owl.csv"), [("owl", "an owl", "v")])
    code, said = run(monkeypatch, capsys, "embed", *arguments, "-o", "f.npz")
    assert (code, said.err.count("\n")) == (2, 1), said.err
    assert message in said.err
    assert not Path("f.npz").exists()
