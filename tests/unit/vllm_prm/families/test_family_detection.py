"""Which family a checkpoint is taken for, and why; and `vllm-prm inspect`, which says so."""

import json

import pytest
import torch
from safetensors.torch import save_file
from tiny_tokenizers import llama_3_tokenizer, mistral_tokenizer, qwen_tokenizer, with_special

from vllm_prm.families import detect_family, load_family
from vllm_prm.serve import main, serve_command

QWEN, LLAMA, MISTRAL = qwen_tokenizer(), llama_3_tokenizer(), mistral_tokenizer()


def checkpoint(path, architecture, tokenizer, weights=(), **config):
    """A folder with config.json, a tokenizer, and `weights`: name -> shape."""
    path.mkdir(parents=True, exist_ok=True)
    model_type = "qwen2" if architecture.startswith("Qwen2") else "llama"
    (path / "config.json").write_text(json.dumps({"architectures": [architecture], "model_type": model_type, **config}))
    tokenizer.save_pretrained(path)
    if weights:
        save_file({name: torch.zeros(shape) for name, shape in dict(weights).items()}, path / "model.safetensors")
    return str(path)


TWO_LAYERS = {"score.0.weight": (4, 4), "score.0.bias": (4,), "score.2.weight": (2, 4), "score.2.bias": (2,)}


@pytest.mark.parametrize(
    ("name", "architecture", "tokenizer", "weights", "family", "reason"),
    [
        ("prm", "Qwen2ForProcessRewardModel", QWEN, (), "qwen_prm", "Qwen2ForProcessRewardModel"),
        ("prm", "Qwen2ForRewardModel", QWEN, TWO_LAYERS, "qwen_prm", "score.0 and score.2"),
        ("ReasonFlux-PRM-7B", "Qwen2ForCausalLM", QWEN, (), "qwen_prm", "called ReasonFlux-PRM-7B"),
        ("prm", "Qwen2ForTokenClassification", QWEN, (), "token_classification", "Qwen2ForTokenClassification"),
        ("PURE-PRM-7B", "Qwen2ForTokenClassification", QWEN, (), "token_classification", "called PURE-PRM-7B"),
        ("prm", "Qwen2ForPrmModel", qwen_tokenizer(bos=True), (), "skywork", "Qwen2ForPrmModel"),
        ("math-shepherd-mistral-7b-prm", "MistralForCausalLM", MISTRAL, (), "math_shepherd", "called math-shepherd"),
        (
            "models--RLHFlow--Llama3.1-8B-PRM-Deepseek-Data/snapshots/0",
            "LlamaForCausalLM",
            LLAMA,
            (),
            "rlhflow",
            "Deep",
        ),
        ("llama-prm800k", "LlamaForCausalLM", LLAMA, (), "placeholder", "called Llama-PRM800K"),
        ("VersaPRM", "LlamaForCausalLM", LLAMA, (), "placeholder", "called VersaPRM"),
        ("prm", "Qwen2ForEnsemblePRM", QWEN, {"score.model.nn1.weight": (2, 4, 8)}, "ensemble_prm", "Qwen2ForEnsemble"),
        (
            *("PathFinder-PRM-7B", "Qwen2ForCausalLM", with_special(qwen_tokenizer(), "<+>", "<->", "<extra>"), ()),
            *("pathfinder", "called PathFinder-PRM-7B"),
        ),
        ("ReasonFlux-PRM-1.5B", "Qwen2ForCausalLM", QWEN, (), "prefix_value", "called ReasonFlux-PRM-1.5B"),
        ("Llama-3.1-8B-FoVer-PRM", "LlamaForCausalLM", LLAMA, (), "rlhflow", "called Llama-3.1-8B-FoVer-PRM"),
        ("Qwen-2.5-7B-FoVer-PRM", "Qwen2ForCausalLM", QWEN, (), "rlhflow", "called Qwen-2.5-7B-FoVer-PRM"),
        (
            *("llama-3.1-medprm-reward-v1.0", "LlamaForCausalLM", with_special(llama_3_tokenizer(), " ки"), ()),
            *("placeholder", "called llama-3.1-medprm-reward-v1.0"),
        ),
        (
            *("PQM", "LlamaForCausalLM", with_special(llama_3_tokenizer(), "[PRM]")),
            *({"v_head.summary.weight": (1, 4), "v_head.summary.bias": (1,)}, "value_head", "called PQM"),
        ),
        *(
            (f"VersaPRM-{kind}", "LlamaForCausalLM", LLAMA, (), "placeholder", f"called VersaPRM-{kind}")
            for kind in ("Aug", "Base-3B", "Base-8B", "Math-Subset", "Small-Subset")
        ),
    ],
)
def test_found(tmp_path, name, architecture, tokenizer, weights, family, reason):
    path = checkpoint(tmp_path / name, architecture, tokenizer, weights)
    detection = detect_family(path)
    assert detection.family == family
    assert reason in detection.reason
    loaded = load_family(path)
    assert loaded.name == family
    assert loaded.hf_overrides()["architectures"] == [architecture.partition("For")[0] + "ForStepReward"]


def test_published_names_bring_their_options(tmp_path):
    pure = checkpoint(tmp_path / "PURE-PRM-7B", "Qwen2ForTokenClassification", QWEN)
    assert load_family(pure).options.score == "difference"
    assert load_family(pure, options={"score": "probability"}).options.score == "probability"
    flux = checkpoint(tmp_path / "ReasonFlux-PRM-7B", "Qwen2ForProcessRewardModel", QWEN)
    assert load_family(flux).options.system is None
    versa = checkpoint(tmp_path / "Llama-PRM800K", "LlamaForCausalLM", LLAMA)
    assert LLAMA.convert_ids_to_tokens(load_family(versa).placeholder_id) == "ĠĊĊĊĊ"


def test_a_product_of_signed_scores_is_refused_before_an_engine_starts(tmp_path, capsys):
    pure = checkpoint(tmp_path / "PURE-PRM-7B", "Qwen2ForTokenClassification", QWEN)
    (tmp_path / "in.jsonl").write_text('{"question": "q", "steps": ["a"]}')
    with pytest.raises(SystemExit) as ended:
        main(["score", pure, "--input", str(tmp_path / "in.jsonl"), "--aggregate", "prod"])
    assert ended.value.code == 2
    assert "'prod' needs scores in [0, 1], this PRM's lie in [-1, 1]" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["1.5B", "7B"])
def test_the_separators_of_trls_published_prms_are_known(tmp_path, size):
    """Of their training scripts (search-and-learn, recipes/training)."""
    path = checkpoint(tmp_path / f"Qwen2.5-Math-{size}-Instruct-PRM-0.2", "Qwen2ForTokenClassification", QWEN)
    loaded = load_family(path)
    assert loaded.options.separator == "\n\n" and loaded.guesses == ()
    assert loaded.render("Q", ["a.", "b"]).step_positions == [3, 5]


def test_a_separator_that_nobody_said_is_a_guess(tmp_path):
    path = checkpoint(tmp_path / "prm", "Qwen2ForTokenClassification", QWEN)
    [guess] = load_family(path).guesses
    assert guess.startswith(r"separator '\n' is a guess") and '{"separator": ...}' in guess
    assert load_family(path, options={"separator": "\n"}).guesses == ()
    declared = checkpoint(tmp_path / "b", "Qwen2ForTokenClassification", QWEN, prm={"family": "token_classification"})
    assert load_family(declared).guesses == ()
    scalar = checkpoint(tmp_path / "c", "LlamaForCausalLM", LLAMA, {"value_head.weight": (1, 4)})
    assert len(load_family(scalar, "value_head").guesses) == 1
    skywork = checkpoint(tmp_path / "d", "Qwen2ForPrmModel", qwen_tokenizer(bos=True))
    assert load_family(skywork).guesses == ()


@pytest.mark.parametrize(
    ("architecture", "tokenizer", "weights", "candidates"),
    [
        ("MistralForCausalLM", MISTRAL, (), ["math_shepherd (a Mistral", "placeholder (any causal LM"]),
        ("LlamaForCausalLM", LLAMA, (), ["rlhflow (a Llama", "placeholder (any causal LM"]),
        ("Qwen2ForCausalLM", QWEN, {"v_head.summary.weight": (1, 4)}, ["skywork (a Qwen2", "value_head (its weights"]),
        ("LlamaForSequenceClassification", LLAMA, {"score.weight": (1, 4)}, ["value_head (its weights"]),
        ("LlamaModel", LLAMA, {"score.weight": (2, 4), "score.bias": (2,)}, ["token_classification (its weights"]),
        ("LlamaModel", LLAMA, (), ["Candidates: none"]),
    ],
)
def test_undecided_names_all_candidates_and_why(tmp_path, architecture, tokenizer, weights, candidates):
    path = checkpoint(tmp_path / "prm", architecture, tokenizer, weights)
    with pytest.raises(ValueError, match='no key "prm"') as error:
        detect_family(path)
    for candidate in candidates:
        assert candidate in str(error.value)


@pytest.mark.parametrize(
    ("architecture", "weights", "family"),
    [
        ("Qwen2ForProcessRewardModel", (), "qwen_prm"),
        ("Qwen2ForRewardModel", TWO_LAYERS, "qwen_prm"),
        ("Qwen2ForTokenClassification", {"score.weight": (2, 4), "score.bias": (2,)}, "token_classification"),
    ],
)
def test_two_checkpoints_of_one_name_are_told_apart_by_what_lies_in_them(tmp_path, architecture, weights, family):
    """Qwen's PRM800K, and PURE's, whose scores are differences."""
    loaded = load_family(checkpoint(tmp_path / "Qwen2.5-Math-7B-PRM800K", architecture, QWEN, weights))
    assert loaded.name == family
    assert loaded.score_range == ((0, 1) if family == "qwen_prm" else (-1, 1))


def test_a_name_that_two_share_decides_nothing(tmp_path):
    path = checkpoint(tmp_path / "Qwen2.5-Math-7B-PRM800K", "Qwen2Model", QWEN)
    with pytest.raises(ValueError, match="qwen_prm .*called.*; token_classification .*called"):
        detect_family(path)


def test_a_head_beside_the_weights(tmp_path):
    """ReasonFlux-PRM-1.5B is a causal LM whose head lies in `reward_head.pt`: no `<extra_0>`, no two classes. A file of
    that name alone does not say how it reads a solution."""
    named = checkpoint(tmp_path / "ReasonFlux-PRM-1.5B", "Qwen2ForCausalLM", QWEN)
    assert detect_family(named).family == "prefix_value"
    renamed = checkpoint(tmp_path / "prm", "Qwen2ForCausalLM", QWEN)
    torch.save({}, tmp_path / "prm" / "reward_head.pt")
    with pytest.raises(ValueError, match="prefix_value \\(reward_head.pt lies beside"):
        detect_family(renamed)
    for path in (named, renamed):
        assert load_family(path, "prefix_value").head.file == "reward_head.pt"


def test_a_prm_of_prefixes_has_no_input_of_vllms_own_route(tmp_path):
    """`POST /pooling` scores a solution in one pass."""
    path = checkpoint(tmp_path / "ReasonFlux-PRM-1.5B", "Qwen2ForCausalLM", QWEN)
    assert "--io-processor-plugin" not in serve_command(path, None, [])


def test_the_head_of_universal_prm_is_seen(tmp_path):
    one = checkpoint(tmp_path / "a" / "Universal-PRM-7B", "Qwen2Model", QWEN, {"score.weight": (1, 4)})
    assert (load_family(one).head.layers, load_family(one).head.bias) == (("score",), False)
    two = {**TWO_LAYERS, "score.2.weight": (1, 4), "score.2.bias": (1,)}
    two = checkpoint(tmp_path / "b" / "Universal-PRM-7B", "Qwen2ForRewardModel", QWEN, two)
    assert (load_family(two).head.layers, load_family(two).head.bias) == (("score.0", "score.2"), True)
    none = checkpoint(tmp_path / "c" / "Universal-PRM-7B", "Qwen2Model", QWEN)
    with pytest.raises(ValueError, match="needs the options head and head_bias"):
        load_family(none)


def test_the_heads_of_act_prm_are_seen(tmp_path):
    heads = {"score.model.nn1.weight": (3, 4, 16)}
    path = checkpoint(tmp_path / "a", "Qwen2ForEnsemblePRM", QWEN, heads, num_ensemble=9, rr_token="<extra_0>")
    assert detect_family(path).reason == "architectures is ['Qwen2ForEnsemblePRM']"
    options = load_family(path).options
    assert (options.members, options.hidden, options.step_token) == (3, 16, "<extra_0>")
    told = checkpoint(tmp_path / "ActPRM-X", "Qwen2ForEnsemblePRM", QWEN, num_ensemble=9, rr_token=None)
    assert load_family(told).options.members == 9
    assert QWEN.convert_ids_to_tokens(load_family(told).step_id) == "ĠĊĊ"
    with pytest.raises(ValueError, match="number of heads"):
        load_family(checkpoint(tmp_path / "b", "Qwen2ForEnsemblePRM", QWEN))


def test_contradicting_evidence_is_refused(tmp_path):
    path = checkpoint(tmp_path / "math-shepherd-mistral-7b-prm", "MistralForTokenClassification", MISTRAL)
    with pytest.raises(ValueError, match="math_shepherd .*called.*; token_classification .*architectures"):
        detect_family(path)
    assert load_family(path, "token_classification").name == "token_classification"


def test_declared_options_win_over_the_recipe_and_given_ones_over_both(tmp_path):
    declared = {"family": "token_classification", "separator": "\n\n", "score": "difference"}
    path = checkpoint(tmp_path / "prm", "Qwen2ForTokenClassification", QWEN, prm=declared)
    assert "declares" in detect_family(path).reason
    options = load_family(path, options={"separator": "\n"}).options
    assert (options.separator, options.score) == ("\n", "difference")
    # Options of another family mean nothing to the one that was named.
    assert load_family(path, "value_head", options={"head": "v", "head_bias": False}).options.separator == "\n"


def test_value_head_reads_its_head_from_the_weights(tmp_path):
    path = checkpoint(tmp_path / "a", "LlamaForCausalLM", LLAMA, {"value_head.weight": (1, 4)})
    loaded = load_family(path, "value_head")
    assert loaded.hf_overrides()["prm"]["head"] == {"layers": ["value_head"], "outputs": 1, "bias": False}
    path = checkpoint(tmp_path / "b", "LlamaForCausalLM", LLAMA, {"mine.weight": (1, 4), "mine.bias": (1,)})
    assert load_family(path, "value_head", options={"head": "mine"}).options.head_bias is True
    with pytest.raises(ValueError, match="head and head_bias: .* no layer of one row called v_head.summary or"):
        load_family(path, "value_head")
    with pytest.raises(ValueError, match=r"head and head_bias: .* there is \['other'\]"):
        load_family(path, "value_head", options={"head": "other"})
    path = checkpoint(tmp_path / "c", "LlamaForCausalLM", LLAMA, {"score.weight": (1, 4), "v_head.weight": (1, 4)})
    with pytest.raises(ValueError, match=r"there is \['v_head', 'score'\]"):
        load_family(path, "value_head")


def test_an_index_without_its_shards_shows_names(tmp_path):
    path = checkpoint(tmp_path / "prm", "Qwen2ForRewardModel", QWEN)
    index = {"metadata": {}, "weight_map": dict.fromkeys(TWO_LAYERS, "model-00001-of-00001.safetensors")}
    (tmp_path / "prm" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert detect_family(path).family == "qwen_prm"


def test_inspect_says_what_and_why(tmp_path, capsys):
    path = checkpoint(tmp_path / "prm", "Qwen2ForProcessRewardModel", QWEN)
    main(["inspect", path])
    shown = json.loads(capsys.readouterr().out)
    assert (shown["family"], shown["architectures"]) == ("qwen_prm", ["Qwen2ForStepReward"])
    assert "Qwen2ForProcessRewardModel" in shown["reason"]
    assert shown["prm"]["head"] == {"layers": ["score.0", "score.2"], "outputs": 2, "bias": True}
    assert shown["example"]["text"].endswith("1 + 1 = 2.<extra_0>The answer is 2.<extra_0>")
    tag = QWEN.convert_tokens_to_ids("<extra_0>")
    example = shown["example"]
    assert [example["token_ids"][position] for position in example["step_positions"]] == [tag, tag]

    main(["inspect", path, "--family", "token_classification", "--family-options", '{"separator": "\\n\\n"}'])
    shown = json.loads(capsys.readouterr().out)
    assert shown["reason"] == "named by --family" and shown["guesses"] == []
    assert shown["prm"]["options"]["separator"] == "\n\n"

    main(["inspect", path, "--family", "token_classification"])
    shown = capsys.readouterr()
    [guess] = json.loads(shown.out)["guesses"]
    assert shown.err == f"vllm-prm inspect: warning: {guess}\n" and guess.startswith(r"separator '\n' is a guess")


def test_mistakes_end_with_one_line(tmp_path, capsys):
    path = checkpoint(tmp_path / "prm", "Qwen2ForProcessRewardModel", LLAMA)
    for flags, message in (
        ([], f"the tokenizer of {path} has no token '<extra_0>'"),
        (["--family-options", "[]"], "--family-options must be a JSON object"),
        (["--family-options", '{"tag": 1}'], "family qwen_prm has no option tag"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["inspect", path, *flags])
        assert end.value.code == 2
        shown = capsys.readouterr().err
        assert message in shown and shown.count("\n") == 1


def test_the_server_is_told_head_and_options(tmp_path):
    path = checkpoint(tmp_path / "prm", "Qwen2ForTokenClassification", QWEN)
    command = serve_command(path, None, [], {"score": "difference"})
    overrides = json.loads(command[command.index("--hf-overrides") + 1])
    assert overrides["architectures"] == ["Qwen2ForStepReward"]
    assert overrides["prm"]["options"]["score"] == "difference"
    # What the running server reads back gives the same family.
    again = load_family(path, overrides["prm"]["family"], options=overrides["prm"]["options"])
    assert again.options == load_family(path, options={"score": "difference"}).options
