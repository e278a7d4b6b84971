"""What the patches do by themselves, in chains and in branches of a graph."""

import comfy.model_patcher
import comfy.ops
import pytest
import torch
from harness.workbench import apply_image_attention, apply_parts, apply_pose, encode, picture, rel, run
from parts2whole.attention.image_attention import ImageAttention
from parts2whole.encoders.pose_network import PoseNetwork


def test_references_pose_and_image_tokens_each_change_the_result(checkpoint, appearance, parts, draw):
    plain = draw(checkpoint.model)
    for model in (
        apply_parts(checkpoint.model, appearance), apply_pose(checkpoint.model, checkpoint.pose_guider),
        apply_image_attention(checkpoint.model, checkpoint, parts),
    ):
        assert rel(draw(model), plain) > 0.05


def test_the_input_model_gives_the_same_bytes_before_and_after(checkpoint, everything, draw):
    before = draw(checkpoint.model)
    options = str(checkpoint.model.model_options)
    draw(everything(checkpoint.model))
    assert torch.equal(draw(checkpoint.model), before)
    assert str(checkpoint.model.model_options) == options


def test_the_same_inputs_give_the_same_bytes_also_when_encoded_again(checkpoint, parts, appearance, draw):
    checkpoint.appearance_encoder.encoded.clear()
    again = encode(checkpoint, parts)
    assert again.references[0] is not appearance.references[0]
    for a, b in zip(appearance.references, again.references):
        for address in a.banks:
            assert torch.equal(a.banks[address].tokens, b.banks[address].tokens)
    assert torch.equal(draw(apply_parts(checkpoint.model, appearance)), draw(apply_parts(checkpoint.model, again)))


@pytest.mark.parametrize("off", [{"strength": 0.0}, {"start_percent": 1.0}, {"start_percent": 0.5, "end_percent": 0.5}])
def test_switched_off_equals_the_unpatched_model_bit_for_bit(checkpoint, appearance, draw, off):
    plain = draw(checkpoint.model)
    assert torch.equal(draw(apply_parts(checkpoint.model, appearance, **off)), plain)
    pose = apply_pose(checkpoint.model, checkpoint.pose_guider, **off)
    assert torch.equal(draw(pose), plain) and not pose.get_additional_models(), "and the pose guider is not loaded"


def test_image_attention_of_strength_zero_equals_the_unpatched_model(checkpoint, parts, draw):
    assert torch.equal(draw(apply_image_attention(checkpoint.model, checkpoint, parts, 0.0)), draw(checkpoint.model))


def test_strength_goes_smoothly_to_zero(checkpoint, appearance, draw):
    plain = draw(checkpoint.model)
    change = [rel(draw(apply_parts(checkpoint.model, appearance, strength=s)), plain) for s in (1e-6, 0.01, 0.3, 1.0)]
    assert change[0] < 1e-3 and change == sorted(change)


def test_percents_are_of_the_sampling(checkpoint, appearance, draw):
    """Each half acts in its own steps: the first step of the early half is that of the full run, the late half's is plain."""
    sigmas = run("Parts2WholeSigmas", model=checkpoint.model, steps=4, denoise=1.0)
    full, plain = apply_parts(checkpoint.model, appearance), checkpoint.model
    early = apply_parts(checkpoint.model, appearance, end_percent=0.5)
    late = apply_parts(checkpoint.model, appearance, start_percent=0.5)
    assert torch.equal(draw(early, sigmas=sigmas[:2]), draw(full, sigmas=sigmas[:2]))
    assert torch.equal(draw(late, sigmas=sigmas[:2]), draw(plain, sigmas=sigmas[:2]))
    assert torch.equal(draw(early, sigmas=sigmas[2:]), draw(plain, sigmas=sigmas[2:]))
    assert torch.equal(draw(late, sigmas=sigmas[2:]), draw(full, sigmas=sigmas[2:]))


def test_drop_is_another_model_than_zero(checkpoint, appearance, draw):
    zero, drop = (draw(apply_parts(checkpoint.model, appearance, mask_mode=mode)) for mode in ("zero", "drop"))
    assert rel(drop, zero) > 0.02


def test_drop_equals_zero_where_nothing_is_masked(checkpoint, draw):
    whole = run("Parts2WholeMakePart", image=picture("ref_1"), label="face")
    appearance = encode(checkpoint, run("Parts2WholeEncodeLabels", clip=checkpoint.clip, parts={"part0": whole}))
    zero, drop = (draw(apply_parts(checkpoint.model, appearance, mask_mode=mode)) for mode in ("zero", "drop"))
    assert torch.equal(drop, zero)



def test_two_chained_applies_equal_one_of_the_combined_appearance(checkpoint, appearance, draw):
    first, second = (appearance._replace(references=r) for r in (appearance.references[:1], appearance.references[1:]))
    chained = apply_parts(apply_parts(checkpoint.model, first), second)
    combined = run("Parts2WholeCombineAppearances", appearances={"appearance0": first, "appearance1": second})
    assert combined.references == appearance.references
    assert rel(draw(chained), draw(apply_parts(checkpoint.model, combined))) < 1e-5


def test_chained_applies_keep_their_own_strength_and_mode(checkpoint, appearance, draw):
    first, second = (appearance._replace(references=r) for r in (appearance.references[:1], appearance.references[1:]))
    strong = apply_parts(checkpoint.model, first, strength=2.0)
    both = apply_parts(strong, second, mask_mode="drop", strength=0.5)
    swapped = apply_parts(apply_parts(checkpoint.model, second, mask_mode="drop", strength=0.5), first, strength=2.0)
    assert rel(draw(both), draw(swapped)) < 1e-5
    assert rel(draw(both), draw(strong)) > 0.01


def test_two_branches_of_a_graph_do_not_touch_each_other(checkpoint, appearance, everything, draw):
    one = apply_parts(checkpoint.model, appearance._replace(references=appearance.references[:1]))
    alone = draw(one)
    other = everything(checkpoint.model)
    draw(other)
    assert torch.equal(draw(one), alone)


def test_the_order_of_the_applies_does_not_matter(checkpoint, appearance, parts, draw):
    a = apply_parts(apply_pose(checkpoint.model, checkpoint.pose_guider), appearance)
    b = apply_pose(apply_parts(checkpoint.model, appearance), checkpoint.pose_guider)
    assert torch.equal(draw(a), draw(b))


def test_image_attention_and_pose_guider_of_another_checkpoint_are_refused(checkpoint, parts):
    def patcher(module):
        return comfy.model_patcher.ModelPatcher(module, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))

    ours = checkpoint.image_attention.model
    other = patcher(ImageAttention({("middle", 0, 0): 64}, 48, 32, comfy.ops.manual_cast))
    with pytest.raises(ValueError, match="tokens of 32 channels, the image attention expects 48"):
        apply_image_attention(checkpoint.model, checkpoint._replace(image_attention=other), parts)

    other = patcher(ImageAttention({("middle", 0, 0): 64}, 32, 32, comfy.ops.manual_cast))
    with pytest.raises(ValueError, match="The image attention was made for a U-Net with 1 transformer blocks"):
        apply_image_attention(checkpoint.model, checkpoint._replace(image_attention=other), parts)

    channels = {address: layer.out_features for address, layer in zip(ours.addresses, ours.to_k_dc)}
    other = patcher(ImageAttention(channels, 32, 48, comfy.ops.manual_cast))
    with pytest.raises(ValueError, match="and a text of width 48; the MODEL has .* and a text of width 32"):
        apply_image_attention(checkpoint.model, checkpoint._replace(image_attention=other), parts)

    other = patcher(PoseNetwork(3, [16, 32, 96, 256], 320, comfy.ops.manual_cast))
    with pytest.raises(ValueError, match="The pose guider was made for a U-Net of width 320, the MODEL has 32"):
        apply_pose(checkpoint.model, other)
