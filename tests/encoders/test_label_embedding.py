"""Labels as CLIP text: of one text encoder, and of SDXL's two."""

import comfy.model_management
import comfy.sd
import comfy.sdxl_clip
import comfy.supported_models_base
import comfy.utils
import pytest
import torch
from harness.workbench import run

WORDS = [f"word{i % 10}" for i in range(60)]


@pytest.fixture(scope="module")
def sdxl_clip():
    """SDXL's CLIP at toy width, with random weights."""
    small = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3, "hidden_act": "gelu"}
    torch.manual_seed(0)
    return comfy.sd.CLIP(
        comfy.supported_models_base.ClipTarget(comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel), parameters=1,
        model_options={"clip_l_model_config": small, "clip_g_model_config": small},
    )


def embed(clip, label):
    part = run("Parts2WholeMakePart", image=torch.rand(1, 8, 8, 3), label=label)
    (labelled,) = run("Parts2WholeEncodeLabels", clip=clip, parts={"part0": part})
    return labelled


def test_the_embedding_is_that_of_the_label(checkpoint):
    labelled = embed(checkpoint.clip, "shoes")
    text, pooled = checkpoint.clip.encode_from_tokens(checkpoint.clip.tokenize("shoes"), return_pooled=True)
    assert torch.equal(labelled.text_embedding, text) and torch.equal(labelled.pooled, pooled)
    assert not torch.equal(embed(checkpoint.clip, "face").text_embedding, text)


def test_it_tells_how_far_it_is_and_can_be_interrupted(checkpoint, monkeypatch):
    part, seen = run("Parts2WholeMakePart", image=torch.rand(1, 8, 8, 3), label="face"), []

    def tell(value, total, preview, **where):
        seen.append((value, total))
        if value == 1:  # the host leaves out what comes soon after
            comfy.model_management.interrupt_current_processing()

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", tell)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run("Parts2WholeEncodeLabels", clip=checkpoint.clip, parts={f"part{i}": part for i in range(3)})
    assert seen == [(1, 3)]


def test_a_long_label_is_cut_with_a_warning_that_says_what(checkpoint, caplog):
    labelled = embed(checkpoint.clip, " ".join(WORDS) + " the very end")
    assert labelled.text_embedding.shape == (1, 77, 32)
    assert "…' is longer than 77 tokens" in caplog.text and "the very end'" in caplog.text
    assert torch.equal(labelled.text_embedding, embed(checkpoint.clip, " ".join(WORDS)).text_embedding)


def test_what_is_cut_off_a_label_of_many_chunks_is_said_to_its_end(checkpoint, caplog):
    embed(checkpoint.clip, " ".join(["a", *["b"] * 74, *["c"] * 75, "d"]))
    assert f"cut off: '{'c ' * 75}d'" in caplog.text


def test_both_encoders_of_sdxl_read_the_label_and_a_cut_is_said_once(sdxl_clip, caplog):
    labelled = embed(sdxl_clip, " ".join(WORDS) + " the very end")
    assert labelled.text_embedding.shape == (1, 77, 64) and labelled.pooled.shape[0] == 1
    assert caplog.text.count("longer than 77 tokens") == 1 and "the very end'" in caplog.text
    assert not caplog.text.count("endoftext") and not caplog.text.count("!")
    short = embed(sdxl_clip, "shoes").text_embedding
    assert all((short[..., half] - labelled.text_embedding[..., half]).any() for half in (slice(32), slice(32, 64)))
