"""From parts to a picture of an edit model, by the nodes that a user sees."""

import pytest
import torch
from harness.edit_models import draw, edit_model, prompt, whole
from harness.host import load_core_nodes
from harness.workbench import picture, run

load_core_nodes("nodes_edit_model", "nodes_flux")

KIND = "flux"


@pytest.fixture(scope="module")
def model():
    """Of as many channels as the tiny VAE's latents."""
    with torch.inference_mode():
        return edit_model(KIND, in_channels=4, out_channels=4)


def part(label="shoes", seed=None):
    """seed: of what the surroundings show"""
    image, mask = picture("ref_1")[..., :3], picture("mask_1")
    if seed is not None:
        noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(seed))
        image = torch.where(mask[..., None] > 0, image, noise)
    return run("Parts2WholeMakePart", image=image, label=label, mask=mask)


def described(*parts, prompt="{parts} A person.", **options):
    return run(
        "Parts2WholeDescribeParts", parts={f"part{i}": each for i, each in enumerate(parts)}, prompt=prompt,
        sentence="Image {number}: the {label}.", **options,
    )


def referenced(checkpoint, parts, conditioning=None, fit="crop", megapixels=0.02, strength=1.0, **region):
    return run(
        "Parts2WholeReferenceParts", conditioning=prompt(KIND) if conditioning is None else conditioning, vae=checkpoint.vae,
        parts=parts, fit=fit, megapixels=megapixels, strength=strength, **region,
    )


def drawn(model, conditioning):
    return draw(run("Parts2WholeApplyReferences", model=model), KIND, conditioning, channels=4)


def test_parts_become_a_prompt_references_and_a_picture(checkpoint, model):
    parts, text = described(part("face"), part("shoes"), first_number=2)
    assert text == "Image 2: the face. Image 3: the shoes. A person."
    before = whole(prompt(KIND), torch.randn(1, 4, 4, 4))
    conditioning = referenced(checkpoint, parts, before)
    assert len(conditioning[0][1]["reference_latents"]) == 3 and len(before[0][1]["reference_latents"]) == 1
    each = conditioning[0][1]["model_conds"]["parts2whole_references"].cond.each
    assert [(reference.index, reference.label) for reference in each] == [(1, "face"), (2, "shoes")]
    assert all(reference.shows.any() for reference in each)
    assert drawn(model, conditioning).isfinite().all()


@pytest.mark.parametrize("fit", ["crop", "whole"])
def test_what_the_surroundings_show_changes_nothing(checkpoint, model, fit):
    one, other = (drawn(model, referenced(checkpoint, described(part(seed=seed))[0], fit=fit)) for seed in (None, 1))
    assert torch.equal(one, other)


def test_a_picture_without_mask_is_the_hosts_own_reference(checkpoint, model):
    image = torch.rand(1, 96, 128, 3, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    parts, _ = described(run("Parts2WholeMakePart", image=image, label="shoes"))
    ours = referenced(checkpoint, parts, megapixels=96 * 128 / 2**20)
    host = whole(prompt(KIND), run("VAEEncode", pixels=image, vae=checkpoint.vae)["samples"])
    assert torch.equal(drawn(model, ours), draw(model, KIND, host, channels=4))


def test_the_same_inputs_give_the_same_bytes(checkpoint, model):
    one, other = (drawn(model, referenced(checkpoint, described(part())[0], strength=1.5)) for _ in range(2))
    assert torch.equal(one, other)


def test_two_nodes_add_up(checkpoint, model):
    """Chained nodes are one with both parts; each has its own strength."""
    both, _ = described(part("face"), part("shoes"))
    chained = referenced(checkpoint, both[1:], referenced(checkpoint, both[:1]))
    assert torch.equal(drawn(model, chained), drawn(model, referenced(checkpoint, both)))
    stronger = referenced(checkpoint, both[1:], referenced(checkpoint, both[:1]), strength=3.0)
    assert not torch.equal(drawn(model, chained), drawn(model, stronger))


def test_a_part_of_several_pictures_is_several_references(checkpoint):
    parts, text = described(run("Parts2WholeMakePart", image=torch.rand(2, 32, 32, 3), label="shoes"))
    assert text == "Image 1: the shoes. Image 2: the shoes. A person."
    assert len(referenced(checkpoint, parts)[0][1]["reference_latents"]) == 2


def test_cut_outs_are_pictures_for_other_nodes():
    image, mask = run("Parts2WholeCutOut", part=part(), fit="crop")
    assert image.shape[:3] == mask.shape and image.shape[-1] == 3 and (image[mask == 0] == 1).all()
    wide, _ = run("Parts2WholeCutOut", part=part(), fit="whole")
    assert wide.shape == picture("ref_1")[..., :3].shape


def test_parts_are_previewed_like_others():
    sheet = run("Parts2WholePreviewParts", parts=described(part())[0], width=128, height=192)
    assert sheet.shape[-1] == 3


def test_parts_of_the_other_kind_of_model(checkpoint, parts):
    assert referenced(checkpoint, parts)[0][1]["reference_latents"]
    with pytest.raises(ValueError, match="whose labels are not embedded, from Describe Parts"):
        run(
            "Parts2WholeEncodeAppearance", appearance_encoder=checkpoint.appearance_encoder, vae=checkpoint.vae,
            parts=described(part())[0], width=128, height=192,
        )


def test_nothing_to_describe():
    with pytest.raises(ValueError, match="Describe Parts got no parts"):
        described(None)


def test_a_mask_of_which_nothing_is_left(checkpoint):
    mask = torch.zeros(1, 512, 512)
    mask[0, 3, 3] = 0.02
    faint = run("Parts2WholeMakePart", image=torch.rand(1, 512, 512, 3), label="shoes", mask=mask)
    with pytest.raises(ValueError, match="Part 'shoes': nothing is left of the mask at 112x112.*`fit` crop"):
        referenced(checkpoint, described(faint)[0], fit="whole", megapixels=0.0125)
