"""The command line: output, files, and exit codes."""

import json
import re
import subprocess
import sys
import warnings

import pytest
import transformers as hf
from PIL import Image
from typer.testing import CliRunner

from interpreto import IMAGES_ONLY, METHODS, AttributionOutput, Comparison, InterpretoError, cli, zoo
from interpreto.cli import arguments as cli_arguments
from interpreto.cli import results as cli_results
from interpreto.cli.app import console
from interpreto.cli.inputs import read
from tests.causal_lms import causal_lm
from tests.models import some_images, text_model, tokenizer


def run(*arguments):
    return CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "200"})


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setattr(console, "width", 200)


def test_methods_are_listed():
    result = run("methods")
    assert result.exit_code == 0
    for method in METHODS:
        assert method.__name__ in result.output
    for name in ("integrated-gradients", "kernel-shap", "input-x-gradient", "lime", "rise", "smooth-grad"):
        assert re.search(rf"\b{name}\b", result.output)


def test_methods_say_whether_they_work():
    result = run("methods", "--model", "zoo:reviews-bert")
    assert result.exit_code == 0
    assert result.output.count("yes") == len(METHODS) - len(IMAGES_ONLY)


def test_methods_say_why_they_do_not_work(tmp_path):
    sizes = dict.fromkeys(("encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads"), 1)
    words = tokenizer("roberta")
    config = hf.BartConfig(vocab_size=len(words), d_model=8, encoder_ffn_dim=8, decoder_ffn_dim=8, **sizes)
    hf.BartForSequenceClassification(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    result = run("methods", "--model", str(tmp_path))
    assert result.exit_code == 0, result.output
    reasons = result.output.count("no: ")
    assert 0 < reasons < len(METHODS)
    assert reasons + result.output.count("yes") == len(METHODS)
    assert "reads its text twice" in " ".join(result.output.split())


@pytest.mark.parametrize("command", ["explain", "compare", "demo"])
def test_where_to_write_is_checked_before_anything_is_computed(tmp_path, monkeypatch, command):
    loads = []
    monkeypatch.setattr("interpreto.zoo.load", lambda name: loads.append(name) or pytest.fail("a model was loaded"))
    (tmp_path / "file").write_text("mine")
    arguments = {
        "explain": ["explain", "A film", "--model", "zoo:reviews-bert", "--method", "occlusion"],
        "compare": ["compare", "--model", "zoo:shapes-vit", "--samples", "1"],
        "demo": ["demo"],
    }[command]
    for place, words in (("file", "is a file"), ("file/below", "cannot be created")):
        result = run(*arguments, "--out", str(tmp_path / place))
        assert result.exit_code == 1
        assert isinstance(result.exception, InterpretoError)
        assert words in str(result.exception)
    if command == "explain":
        (tmp_path / "out" / "results" / "Occlusion-0").mkdir(parents=True)
        (tmp_path / "out" / "results" / "Occlusion-0" / "letter.txt").write_text("Dear aunt,")
        result = run(*arguments, "--out", str(tmp_path / "out"))
        assert "not overwritten" in str(result.exception)
    if command == "compare":
        (tmp_path / "letters").mkdir()
        (tmp_path / "letters" / "to-my-aunt.txt").write_text("Dear aunt,")
        assert "contains files that are not a comparison" in str(
            run(*arguments, "--out", str(tmp_path / "letters")).exception
        )
    assert not loads
    assert (tmp_path / "file").read_text() == "mine"


def test_a_text_is_explained(tmp_path):
    result = run(
        "explain", "The plot was not good", "--model", "zoo:reviews-bert", "--method", "kernel-shap",
        "--granularity", "word", "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert re.search(r"KernelShap\s+.\s+negative", result.output)
    assert re.search(r"good\s+.\s+[+-]\d", result.output)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"attributions.png", "attributions.html", "results"}
    saved = AttributionOutput.load(tmp_path / "out" / "results" / "KernelShap-0")
    assert saved.elements == ["The", " plot", " was", " not", " good"]


def test_an_image_is_explained_by_several_methods(tmp_path):
    some_images()[0].save(tmp_path / "shapes.jpg")
    result = run(
        "explain", str(tmp_path / "shapes.jpg"), "--model", "zoo:shapes-vit", "--method", "integrated-gradients",
        "--method", "rise", "--target", "circle", "-o", "n-samples=20", "-o", "seed=3",
    )  # fmt: skip
    # IntegratedGradients has no n_samples: with several methods it is skipped, and the others run.
    assert result.exit_code == 0, result.output
    assert "IntegratedGradients was skipped" in result.output
    assert re.search(r"Rise\s+.\s+circle\s+.\s+patch \(\d, \d\)\s+.\s+21", result.output)


def test_a_model_in_a_folder(tmp_path):
    model, tokenizer = text_model("gpt2")
    model.save_pretrained(tmp_path / "gpt")
    tokenizer.save_pretrained(tmp_path / "gpt")
    result = run("explain", "I loved it", "--model", str(tmp_path / "gpt"), "--method", "occlusion")
    assert result.exit_code == 0, result.output
    assert "loved" in result.output


@pytest.fixture(scope="module")
def speaker(tmp_path_factory):
    """A folder with a language model, and its tokenizer with a chat template."""
    model, words = causal_lm("gpt2")
    folder = tmp_path_factory.mktemp("gpt")
    words.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def test_generated_text_is_explained(speaker, tmp_path):
    result = run(
        "explain", "The plot was", "--model", speaker, "--task", "text-generation", "--method", "occlusion",
        "-o", "granularity=token", "-o", "generation_kwargs={'max_new_tokens': 3}", "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    saved = AttributionOutput.load(tmp_path / "out" / "results" / "Occlusion-0")
    assert len(saved.target_names) == 3
    assert re.search(r"generated\s+.\s+score\s+.\s+most important", result.output)
    assert "data-t=" in (tmp_path / "out" / "attributions.html").read_text()


def test_a_model_without_its_head_is_refused(speaker):
    with pytest.raises(InterpretoError, match=r"has no weights for score\.weight"):
        cli.app(
            ["explain", "a film", "--model", speaker, "--task", "text-classification", "--method", "saliency"],
            standalone_mode=False,
        )


def test_a_chat_comes_from_a_file(speaker, tmp_path):
    chat = tmp_path / "chat.json"
    chat.write_text(json.dumps([{"role": "user", "content": "Was the film good?"}]))
    result = run("explain", str(chat), "--model", speaker, "--method", "saliency", "--target", " very long")
    assert result.exit_code == 0, result.output
    assert re.search(r"' very'\s+.\s+-?\d", result.output)
    assert re.search(r"' long'\s+.\s+-?\d", result.output)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "is not valid JSON"),
        ("[" * 200_000, "is not valid JSON"),
        ('{"role": "user"}', "contains neither a chat"),
        (None, "There is no file"),
    ],
)
def test_files_that_hold_no_chat(speaker, tmp_path, content, message):
    chat = tmp_path / "chat.json"
    if content is not None:
        chat.write_text(content)
    with pytest.raises((InterpretoError, OSError), match=message):
        cli.app(["explain", str(chat), "--model", speaker, "--method", "saliency"], standalone_mode=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "rize"], "did you mean 'rise'"),
        (["--method", "rise", "-o", "n_samples"], "is not of the form KEY=VALUE"),
        (["--method"], "requires an argument"),
        (["--methods", "rise"], "No such option"),
    ],
)
def test_usage_errors_exit_with_2(arguments, message):
    result = run("explain", "a film", "--model", "zoo:reviews-bert", *arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "a film", "--model", "zoo:review-bert", "--method", "rise"], "did you mean 'reviews-bert'"),
        (["explain", "nowhere.png", "--model", "zoo:shapes-vit", "--method", "rise"], "There is no file 'nowhere.png'"),
        (["explain", "a film", "--model", "zoo:reviews-bert", "--method", "rise", "--target", "9"], "out of range"),
        (["explain", "a film", "--model", "zoo:reviews-bert", "--granularity", "patch"], "None of the methods"),
    ],
)
def test_errors_of_the_users_making_exit_with_1_and_no_traceback(arguments, message, monkeypatch, capsys):
    with pytest.raises(InterpretoError, match=message):
        cli.app(arguments, standalone_mode=False)
    monkeypatch.setattr(sys, "argv", ["interpreto", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    shown = capsys.readouterr()
    assert message.split("'")[0] in " ".join(shown.err.split())
    assert "Traceback" not in shown.err


def test_the_demo_writes_all_files(tmp_path, monkeypatch):
    """With the fastest methods; `make demo` runs all."""
    quick = {name: cli_arguments.NAMES[name] for name in ("occlusion", "saliency")}
    monkeypatch.setattr(cli_results, "NAMES", quick)
    result = run("demo", "--out", str(tmp_path / "demo"))
    assert result.exit_code == 0, result.output
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    assert names == {"images.png", "prompts.png", "texts.png", "texts.html", "stories.png", "stories.html", "results"}
    assert len(list((tmp_path / "demo" / "results").rglob("output.json"))) == 2 * (2 + 2 + 1 + 3 + 2)


def test_help_and_import_need_neither_torch_nor_transformers():
    code = """
import sys
import interpreto
from interpreto.cli import main
try:
    main()
except SystemExit:
    pass
print(sorted({"torch", "transformers"} & set(sys.modules)))
"""
    shown = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert "explain" in shown.stdout
    assert shown.stdout.splitlines()[-1] == "[]"


def test_the_command_is_installed():
    shown = subprocess.run(
        [sys.executable, "-m", "interpreto.cli", "--help"], capture_output=True, text=True, check=True
    )
    for command in ("explain", "compare", "methods", "demo"):
        assert command in shown.stdout


def test_comparing_writes_a_folder_that_can_be_resumed(tmp_path):
    out = tmp_path / "comparison"
    asked = ["compare", "--model", "zoo:shapes-vit", "--methods", "occlusion,saliency", "--out", str(out)]
    asked += ["--metrics", "deletion,pointing-game", "--samples", "2"]
    result = run(*asked)
    assert result.exit_code == 0, result.output
    for word in ("Deletion", "PointingGame", "RandomScores (c)", "peak memory", "report.html"):
        assert word in result.output
    assert {"report.html", "table.csv", "values.csv", "figures", "run.json"} <= {path.name for path in out.iterdir()}
    first = Comparison.load(out)
    again = run(*asked)
    assert again.exit_code == 0
    assert [cost.seconds for cost in Comparison.load(out).costs] == [cost.seconds for cost in first.costs]


def test_comparing_texts_from_a_file(tmp_path):
    (tmp_path / "reviews.txt").write_text("The plot was not good.\n\nA truly charming film.\n")
    (tmp_path / "corpus.txt").write_text("a film\na plot\n")
    arguments = ["--model", "zoo:reviews-bert", "--methods", "occlusion", "--metrics", "deletion", "--target", "1"]
    arguments += ["--removal", "mask", "--removal", "unk", "--granularity", "token"]
    result = run(
        "compare", "--file", str(tmp_path / "reviews.txt"), "--corpus", str(tmp_path / "corpus.txt"), *arguments
    )
    assert result.exit_code == 0, result.output
    for word in ("Deletion [mask]", "Deletion [unk]", "TokenFrequency (c)", "reviews-bert, 2 samples"):
        assert word in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "occlusionn"], "did you mean 'occlusion'"),
        (["--metrics", "pointing-game", "a good film"], "needs masks="),
        (["--file", "EMPTY"], "does not contain any text"),
    ],
)
def test_wrong_comparisons_are_reported(tmp_path, arguments, message):
    (tmp_path / "empty.txt").write_text("\n")
    arguments = [str(tmp_path / "empty.txt") if word == "EMPTY" else word for word in arguments]
    result = run("compare", "--model", "zoo:reviews-bert", *arguments)
    assert result.exit_code == 1
    assert message in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "task=text-classification"], "-o task= is not possible: pass --task"),
        (["-o", "n-bootstrap=9", "-o", "methods=rise"], "-o methods= is not possible: pass --methods"),
        (["-o", "granularity=word", "--granularity", "token"], "set the same option"),
        (["-o", "modality=['text']"], "modality=['text'] must be"),
        (["a good film", "--samples", "5"], "--samples is the number of held-out samples"),
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments, message):
    result = run("compare", "--model", "zoo:reviews-bert", *arguments)
    assert result.exit_code == 1
    assert message in str(result.exception)


def test_lines_of_a_file_are_texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    some_images()[0].save("cat.png")
    (tmp_path / "paths.txt").write_text("cat.png\n")
    result = run("compare", "--model", "zoo:shapes-vit", "--file", "paths.txt")
    assert "'cat.png' is passed as a text" in str(result.exception)


def test_masks_are_those_of_the_samples_own_labels():
    assert cli_results.held_out_samples("shapes-clip", 2, None, True)["masks"] is not None
    assert cli_results.held_out_samples("shapes-clip", 2, "a red circle", True)["masks"] is None
    assert cli_results.held_out_samples("shapes-vit", 2, 0, False)["masks"] is not None


def test_a_model_of_ones_own_needs_something_to_compare_on(tmp_path):
    result = run("compare", "--model", str(zoo.path("reviews-bert")))
    assert result.exit_code == 1
    assert "nothing to compare on" in str(result.exception)


def test_prompts_are_explained(tmp_path):
    zoo.samples("shapes-clip", 1)[0].input.save(tmp_path / "photo.png")
    result = run(
        "explain", str(tmp_path / "photo.png"), "--model", "zoo:shapes-clip", "--prompt", "a red triangle",
        "--prompt", "a green star", "--method", "legrad", "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "a red triangle, a green star" in result.output
    assert (tmp_path / "out" / "attributions.png").exists()


def test_prompts_are_required_for_dual_encoders_and_refused_for_others(tmp_path):
    zoo.samples("shapes-clip", 1)[0].input.save(tmp_path / "photo.png")
    photo = str(tmp_path / "photo.png")
    for arguments, message in (
        (("zoo:shapes-clip",), "pass at least one with --prompt"),
        (("zoo:shapes-vit", "--prompt", "a cat"), "--prompt is for models that compare images with texts"),
        (("zoo:shapes-clip", "--prompt", "a cat", "--target", "1"), "contradict each other"),
    ):
        result = run("explain", photo, "--method", "occlusion", "--model", *arguments)
        assert isinstance(result.exception, InterpretoError)
        assert message in str(result.exception)


SAVED = ["explain", "--model", "zoo:reviews-bert", "--method", "occlusion", "--out"]


def explained(folder):
    """The texts of all saved results, in order."""
    results = sorted((folder / "results").iterdir(), key=lambda path: int(path.name.rpartition("-")[2]))
    return [AttributionOutput.load(path).raw_input for path in results]


TWO = ["A good film", "A bad, bad film"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with the same two texts in files of several kinds."""
    monkeypatch.chdir(tmp_path)
    for name, content in {
        "lines.txt": "\ufeffA good film\r\n\n  A bad, bad film\n",
        "one.csv": 'review\nA good film\n"A bad, bad film"\n',
        "two.csv": 'id,review\n1,A good film\n2,"A bad, bad film"\n',
        "two.jsonl": '{"id": 1, "review": "A good film"}\n\n{"id": 2, "review": "A bad, bad film"}\n',
        "list.json": '["A good film", "A bad, bad film"]',
        "notes.md": "A good film",
        "some/a.txt": "A good film\n",
        "some/b.txt": "A bad, bad film\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode())
    (tmp_path / "photos").mkdir()
    for number, picture in enumerate(some_images()[:2]):
        picture.save(tmp_path / "photos" / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize(
    "given",
    [
        ["lines.txt"],
        ["one.csv"],
        ["two.csv", "--column", "review"],
        ["two.jsonl", "--column", "review"],
        ["list.json"],
        ["some"],
        ["some/*.txt"],
        ["some/?.txt"],
        ["some/a.txt", "--text", "A bad, bad film"],
        ["A good film", "A bad, bad film"],
        ["--text", "A good film", "--text", "A bad, bad film"],
    ],
    ids=" ".join,
)
def test_inputs_are_read_from_files(files, given):
    result = run(*SAVED, "out", *given)
    assert result.exit_code == 0, (result.output, result.exception)
    assert explained(files / "out") == TWO


def test_a_parquet_file_is_read(files):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    pandas.DataFrame({"id": [1, 2], "review": TWO}).to_parquet(files / "two.parquet")
    result = run(*SAVED, "out", "two.parquet", "--column", "review")
    assert result.exit_code == 0, (result.output, result.exception)
    assert explained(files / "out") == TWO


def test_standard_input_is_read(files):
    result = CliRunner().invoke(cli.app, [*SAVED, "out", "-"], input="\n".join(TWO))
    assert result.exit_code == 0, (result.output, result.exception)
    assert explained(files / "out") == TWO


def test_images_are_read_from_folders_globs_tables_and_standard_input(files):
    (files / "images.csv").write_text("photos/0.png\n".join(["path\n", ""]))
    arguments = ["explain", "--model", "zoo:shapes-vit", "--method", "saliency"]
    for given, count in ((["photos"], 2), (["photos/*.png"], 2), (["images.csv"], 1)):
        result = run(*arguments, *given)
        assert result.exit_code == 0, (result.output, result.exception)
        assert f"shapes-vit, {count} sample" in result.output
    result = CliRunner().invoke(cli.app, [*arguments, "-"], input=(files / "photos" / "0.png").read_bytes())
    assert result.exit_code == 0, (result.output, result.exception)


def test_cells_of_tables_may_be_long(files):
    long = "A good film. " * 20_000
    (files / "long.csv").write_text(f"review\n{long}\n")
    assert read(["long.csv"], (), None) == [long.strip()]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["missing.txt"], "There is no file 'missing.txt'. If it is a text, pass it with --text."),
        (["missing/*.csv"], "There is no file 'missing/*.csv'"),
        (["cat.jpg"], "There is no file 'cat.jpg'"),
        (["https://example.com/cat.jpg"], "is a URL, and files are not downloaded"),
        (["/dev/zero"], "is a pipe or a device, not a file"),
        (["photos/0.png"], "'photos/0.png' is an image, and the inputs of this model are texts"),
        (["photos"], "is an image, and the inputs of this model are texts"),
        (["two.csv"], "has the columns id, review: choose one with --column"),
        (["two.csv", "--column", "text"], "has no column 'text' but id, review"),
        (["notes.md"], "The format of the file 'notes.md' is not supported"),
        (["both"], "contains both images and texts: choose one"),
        (["chat.json"], "A chat is for language models"),
        (["bad.jsonl"], "Line 2 of 'bad.jsonl' is not valid JSON"),
        (["deep.jsonl"], "Line 1 of 'deep.jsonl' is not valid JSON"),
        (["empty.csv"], "'empty.csv' does not contain any rows"),
        (["hole.csv", "--column", "review"], "Row 2 of 'hole.csv' has no text in the column 'review' but ''"),
        (["latin.txt"], "'latin.txt' is not in UTF-8"),
        ([], "There is nothing to explain: pass INPUT or --text"),
    ],
    ids=str,
)
def test_files_that_cannot_be_read_are_reported(files, given, message):
    (files / "chat.json").write_text('[{"role": "user", "content": "hi"}]')
    (files / "bad.jsonl").write_text('{"a": "x"}\n{"a"\n')
    (files / "deep.jsonl").write_text('{"a":' * 200_000)
    (files / "empty.csv").write_text("review\n")
    (files / "hole.csv").write_text("id,review\n1,good\n2,\n")
    (files / "both").mkdir()
    some_images()[0].save(files / "both" / "a.png")
    (files / "both" / "a.txt").write_text("a film")
    (files / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    result = run("explain", "--model", "zoo:reviews-bert", "--method", "occlusion", *given)
    assert result.exit_code == 1
    assert isinstance(result.exception, InterpretoError)
    assert message in str(result.exception)


def test_a_text_that_ends_in_the_name_of_a_file_is_a_text(files):
    result = run(*SAVED, "out", "I read all of lines.txt", "--text", "lines.txt")
    assert result.exit_code == 0, (result.output, result.exception)
    assert explained(files / "out") == ["I read all of lines.txt", "lines.txt"]


def test_a_line_of_json_may_hold_other_line_breaks(files):
    """JSON lines end only at line feeds; strings may contain an unescaped U+2028."""
    text = "A good film\u2028and a long one"
    (files / "one.jsonl").write_text(json.dumps({"review": text}, ensure_ascii=False) + "\n", encoding="utf-8")
    result = run(*SAVED, "out", "one.jsonl")
    assert result.exit_code == 0, (result.output, result.exception)
    assert explained(files / "out") == [text]


@pytest.mark.filterwarnings("default")
def test_warnings_take_one_line_each(tmp_path, monkeypatch, capsys):
    pages = tmp_path / "pages.tiff"
    picture = Image.new("RGB", (40, 40), "red")
    picture.copy().save(pages, save_all=True, append_images=[picture.copy()])
    monkeypatch.setattr(
        "sys.argv", ["interpreto", "explain", str(pages), "--model", "zoo:shapes-vit", "--method", "saliency"]
    )
    before = warnings.showwarning
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    caught = " ".join(capsys.readouterr().err.split())
    assert "warning: " in caught
    assert "has 2 frames or pages: only the first one is explained." in caught
    assert "UserWarning" not in caught
    assert warnings.showwarning is before
