"""Instructions: sentences, their embeddings, and a policy that is told what to do."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from dp_ros.actions import ACTION_DIM, STATE_DIM
from dp_ros.policy import instructions as module
from dp_ros.policy.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from dp_ros.policy.checkpoint_config import INSTRUCTIONS, instructions_of, verify_files
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.encoder import ObservationEncoder, ResNetEncoder
from dp_ros.policy.instructions import Instructions, Sentence, make_instructions, model_folder
from dp_ros.policy.sentence_encoder import encode
from dp_ros.policy.sentence_match import NotUnderstoodError, SentenceMatch
from dp_ros.resources import share_file
from dp_ros.schema import (
    ConfigError,
    EncoderConfig,
    InstructionConfig,
    InstructionError,
    PolicyConfig,
    load_sentences,
    override,
    plain,
)
from dp_ros.sim.arm import find_tasks

pytestmark = pytest.mark.usefixtures("one_thread")
DIM = 12
# Of sentence-transformers 6.2, with the same weights: "put the peg in the hole -- it's at the café".
REFERENCE = (0.022477, 0.033709, -0.033726, 0.023003)


@pytest.fixture
def no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra `text` is not installed."""
    monkeypatch.setattr("dp_ros.policy.instructions.model_folder", lambda: None)


def test_a_damaged_sentence_encoder_is_named_with_the_remedy(
    known: Instructions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dp_ros.policy.instructions.model_folder", lambda: tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(
        InstructionError, match=r"sentence encoder in .* cannot be used .*: pip install --force"
    ) as caught:
        known.meaning("juggle the cubes")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def known() -> Instructions:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3, DIM)).astype(np.float32)
    sentences = (
        Sentence("open it", "open"),
        Sentence("close it", "close"),
        Sentence("shut it", "close", "held_out"),
    )
    return Instructions(sentences, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def told(policy: PolicyConfig) -> PolicyConfig:
    return override(policy, {"instruction": {"embedding_dim": DIM, "features": 6}})


def refusal(sentence: str, instructions: Instructions) -> str:
    with pytest.raises(InstructionError) as caught:
        instructions.meaning(sentence)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_task_of_metaworld_has_sentences_that_stand_for_it_alone() -> None:
    sentences = load_sentences(share_file(module.SENTENCES)).tasks
    assert set(sentences) == set(find_tasks("all"))
    assert all(len(each.known) >= 6 and len(each.held_out) == 2 for each in sentences.values())
    assert all(len(each.paraphrases) >= 18 for each in sentences.values())


@pytest.mark.parametrize(("said", "opposite"), [("open", "close closed shut"), ("close", "open opened")])
def test_paraphrases_add_no_word_of_the_opposite(said: str, opposite: str) -> None:
    """It would hide that an unknown sentence asks for the opposite: "pull the shut door" that of "shut it"."""
    for task in (f"door-{said}-v3", f"drawer-{said}-v3", f"window-{said}-v3"):
        of_task = load_sentences(share_file(module.SENTENCES)).tasks[task]
        words = set(opposite.split()) - set(" ".join(of_task.known).split())
        assert not [text for text in of_task.paraphrases if words & set(text.split())], task


def test_shipped_embeddings_are_those_of_the_shipped_sentences() -> None:
    """`make instructions` was run after the last change, so no language model is needed to train on Metaworld."""
    sentences = load_sentences(share_file(module.SENTENCES)).tasks
    shipped = module.load_instructions(share_file(module.SHIPPED))
    wanted = {
        plain(text)
        for each in sentences.values()
        for text in (*each.known, *each.paraphrases, *each.held_out)
    }
    assert {each.text for each in shipped.sentences} == wanted
    np.testing.assert_allclose(np.linalg.norm(shipped.embeddings, axis=1), 1.0, atol=2e-3)


@pytest.mark.skipif(model_folder() is None, reason="the extra text is not installed")
def test_sentence_encoder_gives_the_shipped_embeddings_and_those_of_its_authors() -> None:
    folder = model_folder()
    assert folder is not None
    texts = ["open the drawer", "press the button behind the wall from above"]
    np.testing.assert_allclose(encode(texts, folder), module.embed(texts), atol=1e-3)
    odd = encode(["put the peg in the hole -- it's at the café"], folder)[0]
    np.testing.assert_allclose(odd[:4], REFERENCE, atol=1e-5)


def test_a_sentence_is_known_whatever_its_case_spaces_and_last_sign(
    known: Instructions, no_encoder: None
) -> None:
    meaning = known.meaning("  Open   it! ")
    assert (meaning.text, meaning.task) == ("open it", "open")
    np.testing.assert_array_equal(meaning.embedding, known.embeddings[0])
    assert [known.knows(text) for text in ("OPEN it.", "do nothing", "shut it")] == [True, False, False]
    assert known.tasks == ("open", "close")
    assert (known.sentence("close"), known.sentence("close", kind="held_out")) == ("close it", "shut it")


def test_an_unknown_sentence_is_taken_for_one_of_the_task_that_it_asks_for() -> None:
    """The sentences that training never saw."""
    shipped = module.load_instructions(share_file(module.SHIPPED))
    taken: Counter[str] = Counter()
    for sentence in shipped.sentences:
        if sentence.kind == "paraphrase":
            assert shipped.meaning(sentence.text).task == sentence.task
            continue
        if sentence.kind == "known":
            assert shipped.meaning(sentence.text).text == sentence.text
            continue
        try:
            meaning = shipped.meaning(sentence.text)
        except NotUnderstoodError:
            taken["refused"] += 1
            continue
        assert meaning.text in {shipped.sentences[row].text for row in shipped.rows(meaning.task)}
        taken["right" if meaning.task == sentence.task else "wrong"] += 1
    assert taken == {"right": 98, "refused": 2}


KNOWN = ("open it", "shut it", "turn the tap on", "never sing")


@pytest.mark.parametrize(
    ("sentence", "vector", "said"),
    [
        (
            "dance",
            (0.1, 0.0, 0.1),
            "is unlike every sentence that the policy knows: say one of those, e.g. 'open it'",
        ),
        ("move it", (0.7071, 0.7072, 0.0), "'move it' may mean 'shut it' or 'open it': say one of them"),
        (
            "don't open it",
            (1.0, 0.0, 0.0),
            "has the word 'don't', which is not understood: say what to do without it",
        ),
        ("never open it", (1.0, 0.0, 0.0), "has the word 'never', which is"),
        ("opened or not", (1.0, 0.0, 0.0), "has the word 'not', which is"),
        ("shut down the arm", (1.0, 0.0, 0.0), "has the word 'shut down', which is"),
        ("power off", (1.0, 0.0, 0.0), "has the word 'power off', which is"),
        ("turn the tap off", (0.0, 0.0, 1.0), "but has the word 'off', which says the opposite"),
        ("get it open", (0.0, 1.0, 0.0), "is nearest to 'shut it', but has the word 'open'"),
    ],
)
def test_a_sentence_that_is_not_understood_is_one_line(
    monkeypatch: pytest.MonkeyPatch, sentence: str, vector: tuple[float, ...], said: str
) -> None:
    sentences = tuple(Sentence(text, text) for text in KNOWN)
    known = Instructions(sentences, np.eye(4, dtype=np.float32))
    monkeypatch.setattr(module, "encoder_folder", lambda text: Path())
    monkeypatch.setattr(module, "embed", lambda texts: np.array([[*vector, 0.0]], np.float32))
    line = refusal(sentence, known)
    assert line.startswith(f"'{sentence}' ")
    assert said in line
    assert known.meaning("Never sing!").text == "never sing", "a known sentence stands for itself"


@pytest.mark.parametrize(
    ("sentence", "taken"), [("get it open", "open it"), ("make sure it is closed", "shut it")]
)
def test_of_two_tasks_the_one_that_the_words_contradict_drops_out(
    monkeypatch: pytest.MonkeyPatch, sentence: str, taken: str
) -> None:
    known = Instructions(tuple(Sentence(text, text) for text in KNOWN), np.eye(4, dtype=np.float32))
    monkeypatch.setattr(module, "encoder_folder", lambda text: Path())
    monkeypatch.setattr(module, "embed", lambda texts: np.array([[0.7071, 0.7072, 0.0, 0.0]], np.float32))
    assert known.meaning(sentence).text == taken


PARAPHRASED = """
open: {known: [open it, pull it open], paraphrases: [let me in, part the halves]}
close: {known: [close it], paraphrases: [seal it]}
elsewhere: {known: [dig], paraphrases: [shovel]}
"""


@pytest.fixture
def paraphrased(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Instructions:
    """Two known sentences of "open", one of "close", and the paraphrases that a file adds."""
    vectors = {
        "open it": (1.0, 0.0, 0.0, 0.0),
        "pull it open": (0.8, 0.6, 0.0, 0.0),
        "close it": (0.0, 0.0, 1.0, 0.0),
        "let me in": (0.6, 0.8, 0.0, 0.0),
        "part the halves": (0.8, 0.0, 0.0, 0.6),
        "seal it": (0.0, 0.0, 0.6, 0.8),
        "seal it now": (0.0, 0.0, 0.55, 0.835),
    }
    monkeypatch.setattr(module, "encoder_folder", lambda text: Path())
    monkeypatch.setattr(
        module, "embed", lambda texts: np.array([vectors[each] for each in texts], np.float32)
    )
    (tmp_path / "mine.yaml").write_text(PARAPHRASED)
    known = tuple(Sentence(text, task) for text, task in (("open it", "open"), ("pull it open", "open")))
    table = np.array([vectors[text] for text in ("open it", "pull it open", "close it")], np.float32)
    trained = Instructions((*known, Sentence("close it", "close")), table)
    added = trained.with_paraphrases(tmp_path / "mine.yaml")
    assert added.fingerprint() == trained.fingerprint(), "a training is not told them"
    return added.with_paraphrases(tmp_path / "mine.yaml")  # again: no sentence twice


def test_a_paraphrase_stands_for_the_most_similar_known_sentence_of_its_task(
    paraphrased: Instructions, tmp_path: Path
) -> None:
    paraphrased.save(tmp_path / "saved.safetensors")
    for known in (paraphrased, module.load_instructions(tmp_path / "saved.safetensors")):
        taken = {text: known.meaning(text).text for text in ("Let me in!", "part the halves", "seal it")}
        assert taken == {"Let me in!": "pull it open", "part the halves": "open it", "seal it": "close it"}
        assert known.knows("seal it")
        assert len(known.sentences) == 6
        assert [known.sentences[row].text for row in known.rows("open")] == ["open it", "pull it open"]
        np.testing.assert_array_equal(known.meaning("let me in").embedding, known.embeddings[1])


def test_an_unknown_sentence_is_compared_with_paraphrases_too(paraphrased: Instructions) -> None:
    """Alone, "close it" is too unlike."""
    assert paraphrased.meaning("seal it now").text == "close it"
    alone = replace(paraphrased, sentences=paraphrased.sentences[:3], embeddings=paraphrased.embeddings[:3])
    assert "is unlike every sentence" in refusal("seal it now", alone)


def test_paraphrases_of_other_tasks_are_refused(known: Instructions, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("elsewhere: {known: [dig], paraphrases: [shovel]}")
    with pytest.raises(InstructionError, match=r"mine.yaml: has no paraphrases of the tasks that the policy"):
        known.with_paraphrases(tmp_path / "mine.yaml")


def test_files_of_older_versions_say_only_whether_a_sentence_is_held_out(
    known: Instructions, tmp_path: Path
) -> None:
    facts = [[each.text, each.task, each.kind == "held_out"] for each in known.sentences]
    save_file({"embeddings": known.embeddings}, tmp_path / "old", metadata={"sentences": json.dumps(facts)})
    assert module.load_instructions(tmp_path / "old").sentences == known.sentences
    facts[0][2] = "sung"
    save_file({"embeddings": known.embeddings}, tmp_path / "odd", metadata={"sentences": json.dumps(facts)})
    with pytest.raises(InstructionError, match="sung is no kind of sentence"):
        module.load_instructions(tmp_path / "odd")


def test_a_task_that_is_left_only_because_the_words_contradict_all_others_is_not_taken() -> None:
    texts = ["open it", "open the lid", "uncover it", "turn the tap"]
    tasks = ["open", "open", "uncover", "tap"]
    vectors = np.array([[1, 0, 0, 0], [0, 0, 0, 1], [0.8, 0.6, 0, 0], [0, 0, 1, 0]], np.float64)
    match = SentenceMatch(texts, tasks, vectors, differences=np.eye(4))
    with pytest.raises(NotUnderstoodError, match="'close it' may mean 'uncover it' or 'open it'"):
        match("close it", vectors[0])


def test_a_model_whose_embeddings_are_of_another_encoder_takes_known_sentences_only(
    known: Instructions,
) -> None:
    text = module.load_instructions(share_file(module.SHIPPED)).sentences[0].text
    assert f"'{text}' is unknown, and this policy takes sentences that it knows only" in refusal(text, known)
    held_out = Instructions((Sentence("open it", "open", kind="held_out"),), known.embeddings[:1])
    assert "'open it' is unknown" in refusal("open it", held_out)


@pytest.mark.skipif(model_folder() is None, reason="the extra text is not installed")
@pytest.mark.parametrize(
    "sentence", ["dance", "hello", "pick up the banana", "go home", "turn left", "open the drawer slowly"]
)
def test_what_no_task_asks_for_is_not_understood(sentence: str) -> None:
    assert f"'{sentence}' " in refusal(sentence, module.load_instructions(share_file(module.SHIPPED)))


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("", "the instruction is empty: give a sentence"),
        (" .\n", "the instruction is empty: give a sentence"),
        ("x" * 10_000, "has 10000 letters, at most 300 are read"),
        (b"open \xff\xfe".decode(errors="surrogateescape"), "is not UTF-8 text"),
        ("open\x00it", "letters that cannot be printed"),
        ("fly away", "'fly away' is not a known one, and the sentence encoder is not installed: pip install"),
    ],
)
def test_bad_instruction_is_one_line(known: Instructions, no_encoder: None, sentence: str, said: str) -> None:
    assert said in refusal(sentence, known)


def test_a_fingerprint_is_of_all_that_a_training_is_told(known: Instructions) -> None:
    moved = (replace(known.sentences[0], kind="held_out"), *known.sentences[1:])
    others = [replace(known, sentences=moved), replace(known, scenes={"open": "drawer"})]
    assert len({each.fingerprint() for each in (known, *others)}) == 3
    assert known.fingerprint() == replace(known).fingerprint()


def test_task_without_a_sentence_is_one_line(known: Instructions, tmp_path: Path) -> None:
    with pytest.raises(
        InstructionError, match="task stack has no instruction in this model, which knows open"
    ):
        known.sentence("stack")
    with pytest.raises(InstructionError, match=r"task stack has no instruction in .*instructions.yaml: add"):
        make_instructions(InstructionConfig(), ["drawer-open-v3", "stack"])
    with pytest.raises(InstructionError, match="the dataset names no task, which has no instruction"):
        make_instructions(InstructionConfig(), [""])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "a: {known: [Open it]}\nb: {known: [open it.]}",
            "'open it.' is listed under a and b: keep it once",
        ),
        ("a: {known: [open it, Open it]}", "'Open it' is listed twice under a: keep it once"),
        ("a: {known: [open it], held_out: [open it]}", "'open it' is listed twice under a: keep it once"),
        ("a: {known: [x]}\na: {known: [y]}", "'a' is given in line 1 and in line 2: keep one"),
        ("{a: {known: [x]}, a: {known: [y]}}", "'a' is given in line 1 and in line 1: keep one"),
        ("a: {known: []}", "known"),
        ("a: {known: ['']}", "a: the instruction is empty"),
        ("[", "is not YAML"),
        ("a", "expected tasks with their sentences"),
    ],
)
def test_bad_file_of_sentences_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        make_instructions(InstructionConfig(), ["a"], str(path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_policy_listens_and_every_part_of_the_conditioning_learns(
    each_policy: PolicyConfig, stats: dict[str, Any], known: Instructions
) -> None:
    torch.manual_seed(0)
    policy = DiffusionPolicy(told(each_policy), stats).eval()
    state, actions = torch.zeros(2, 2, STATE_DIM), torch.zeros(2, 8, ACTION_DIM)
    images = torch.rand(2, 2, 2, 3, 32, 32)
    sentences = torch.from_numpy(known.embeddings)

    def plan(row: int) -> torch.Tensor:
        return policy.plan(images, state, torch.Generator().manual_seed(0), instruction=sentences[[row, row]])

    assert torch.equal(plan(0), plan(0))
    assert not torch.allclose(plan(0), plan(1))
    with pytest.raises(InstructionError, match="no instruction"):
        policy.plan(images, state, torch.Generator())
    noise = torch.Generator().manual_seed(1)
    policy.loss(images, state, actions, noise, instruction=sentences[:2]).backward()
    for name, parameter in policy.encoder.named_parameters():
        if "film" in name or "instruction" in name:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_instruction_of_shared_frames_is_that_of_their_window() -> None:
    config = EncoderConfig(
        height_px=32, width_px=32, crop_height_px=32, crop_width_px=32, stages=2, keypoints=4, feature_dim=8
    )
    torch.manual_seed(0)
    encoder = ObservationEncoder(config, T_o=2, instruction=InstructionConfig(embedding_dim=DIM, features=6))
    torch.nn.init.normal_(encoder.cameras[0].film.weight, std=0.1)
    pictures, frames = torch.rand(5, 3, 32, 32), torch.tensor([[0, 1], [1, 2], [3, 4]])
    sentences = torch.eye(DIM)[[0, 0, 1]]
    state = torch.zeros(3, 2, STATE_DIM)
    shared = encoder([pictures], state, frames, sentences)
    separate = encoder([pictures[frames]], state, None, sentences)
    torch.testing.assert_close(shared, separate)


@pytest.mark.parametrize("width", [16, 32])
def test_narrow_encoder_is_a_resnet_of_that_width(width: int) -> None:
    narrow, usual = (ResNetEncoder(EncoderConfig(width=w)) for w in (width, 64))
    assert [name for name, _ in narrow.named_parameters()] == [name for name, _ in usual.named_parameters()]
    for (name, one), (_, other) in zip(narrow.named_parameters(), usual.named_parameters(), strict=True):
        if name.startswith("backbone"):
            shares = [a / b for a, b in zip(one.shape, other.shape, strict=True)]
            assert set(shares) <= {width / 64, 1.0}, name
    assert narrow(torch.rand(2, 3, 64, 64)).shape == (2, 64)
    assert "width" not in EncoderConfig().model_dump()


def test_checkpoint_keeps_its_sentences_and_refuses_others(
    tiny_policy: PolicyConfig, stats: dict[str, Any], known: Instructions, tmp_path: Path
) -> None:
    policy = DiffusionPolicy(told(tiny_policy), stats)
    with pytest.raises(CheckpointError, match="needs its sentences"):
        save_checkpoint(policy, tmp_path / "none")
    folder = save_checkpoint(policy, tmp_path / "told", instructions=known)
    kept = instructions_of(folder)
    assert kept is not None
    assert kept.sentences == known.sentences
    np.testing.assert_array_equal(kept.embeddings, known.embeddings)
    assert load_checkpoint(folder).config == policy.config
    plain_folder = save_checkpoint(DiffusionPolicy(tiny_policy, stats), tmp_path / "plain")
    assert instructions_of(plain_folder) is None
    assert "instruction" not in json.loads((plain_folder / "config.json").read_text())["policy"]
    Instructions(known.sentences, -known.embeddings).save(folder / INSTRUCTIONS)
    for check in (verify_files, instructions_of):
        with pytest.raises(CheckpointError, match="is not the file that config"):
            check(folder)
