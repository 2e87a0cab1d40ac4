"""A family from the user's own file: by name, from config.json, and in the server's process."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_tokenizers import llama_3_tokenizer

from openrlhf_prm.cluster.checks import require_family
from vllm_prm.checkpoint import family_in_engine, load_served_family
from vllm_prm.families import PRMFamily, detect_family, load_family, resolve_family
from vllm_prm.serve import main, serve_command

FILE = Path(__file__).parents[4] / "examples" / "extensions" / "family.py"
EXAMPLE = f"{FILE}:AskedPRM"
OPTIONS = {"good": "+", "bad": "-"}


@pytest.fixture
def path(tmp_path):
    """A folder with a tokenizer and a config.json that declares nothing."""
    llama_3_tokenizer().save_pretrained(tmp_path / "prm")
    (tmp_path / "prm" / "config.json").write_text(
        json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"})
    )
    return tmp_path / "prm"


def declare(path: Path, family: str, **options) -> None:
    file = path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "prm": {"family": family, **options}}))


def test_it_is_written_as_its_docstring_says(path):
    family = load_family(str(path), EXAMPLE, options=OPTIONS)
    rendered = family.render("How many?", ["2 + 2 = 4.", ""])
    text = "How many?\n2 + 2 = 4.\nIs this right?\nIs this right?"
    assert family.tokenizer.decode(rendered.token_ids) == text
    ends = [family.tokenizer.decode(rendered.token_ids[: at + 1]) for at in rendered.step_positions]
    assert ends == [text.removesuffix("\nIs this right?"), text]
    assert family.decode([[1.0, 1.0]]) == [0.5]
    with pytest.raises(ValueError, match="AskedPRM has no option tag"):
        load_family(str(path), EXAMPLE, options={"tag": "x"})


def test_other_processes_find_it_by_its_whole_path(path, monkeypatch):
    monkeypatch.chdir(FILE.parent)
    family = load_family(str(path), "family.py:AskedPRM", options=OPTIONS)
    assert family.name == family.hf_overrides()["prm"]["family"] == EXAMPLE
    assert type(family) is resolve_family(EXAMPLE) and issubclass(type(family), PRMFamily)
    command = serve_command(str(path), "family.py:AskedPRM", [], OPTIONS)
    overrides = json.loads(command[command.index("--hf-overrides") + 1])
    assert overrides["prm"]["family"] == EXAMPLE and overrides["prm"]["options"]["good"] == "+"
    monkeypatch.chdir("/")
    assert in_engine(path, overrides["prm"], overrides).render("q", ["a"]) == family.render("q", ["a"])


def in_engine(path: Path, prm: dict, overrides: dict, runner: str = "pooling"):
    """The family that the server's process finds in vLLM's `ModelConfig`."""
    config = SimpleNamespace(
        hf_config=SimpleNamespace(prm=prm),
        hf_overrides=overrides,
        runner_type=runner,
        architecture="LlamaForStepReward",
        model=str(path),
        revision=None,
    )
    return family_in_engine(config, llama_3_tokenizer())


def test_a_checkpoint_may_bring_its_family_but_not_run_it_unasked(path):
    shutil.copy(FILE, path / "mine.py")
    declare(path, "mine.py:AskedPRM", ask=" ok?", **OPTIONS)
    with pytest.raises(ValueError, match="names code: prm.family is .*mine.py:AskedPRM; if you trust it"):
        detect_family(str(path))
    with pytest.raises(ValueError, match="names code"):
        load_served_family(str(path))
    trusted = load_served_family(str(path), trust_remote_code=True)
    named = load_served_family(str(path), str(path / "mine.py:AskedPRM"))
    assert trusted.options == named.options and trusted.options.ask == " ok?"
    assert trusted.name == f"{path / 'mine.py'}:AskedPRM"

    declared = {"family": trusted.name, "options": OPTIONS}
    with pytest.raises(ValueError, match="names code"):
        in_engine(path, declared, {})
    assert in_engine(path, declared, {}, "generate") is None
    assert in_engine(path, declared, {"prm": declared}).name == trusted.name


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("placeholders", "unknown PRM family 'placeholders'; choose one of .*generative, .*or give FILE.py:Name"),
        (f"{FILE}:Nothing", "defines no Nothing"),
        (f"{FILE}:AskedOptions", "AskedOptions is no PRM family: it must be a subclass"),
        (f"{FILE}:class_probabilities", "is no PRM family"),
        ("nowhere.py:Mine", "there is no file"),
    ],
)
def test_what_is_no_family_is_refused_wherever_it_is_named(path, family, message, capsys):
    with pytest.raises(ValueError, match=message):
        load_family(str(path), family)
    with pytest.raises(ValueError, match=f"^--prm.family: .*{message}"):
        require_family(family)
    for command in ("inspect", "serve", "score"):
        with pytest.raises(SystemExit, match="2"):
            main([command, str(path), "--family", family])
        error = capsys.readouterr().err
        assert error.startswith(f"vllm-prm {command}: --family: ") and error.count("\n") == 1


def test_inspect_and_the_hosts_flag_take_it(path, capsys):
    main(["inspect", str(path), "--family", EXAMPLE, "--family-options", json.dumps(OPTIONS)])
    assert json.loads(capsys.readouterr().out)["prm"]["family"] == EXAMPLE
    require_family(EXAMPLE)
