"""What the appearance encoder remembers from one run to the next."""

import gc

import pytest
import torch
from harness.workbench import encode, golden_parts, picture, run
from parts2whole.encoders import appearance


@pytest.fixture
def encoded_labels(monkeypatch):
    """The labels of the references that went through the U-Net."""
    labels = []
    encode_reference = appearance.encode_reference

    def seen(encoder, latent, mask, labelled, *size):
        labels.append(labelled.part.label)
        return encode_reference(encoder, latent, mask, labelled, *size)

    monkeypatch.setattr(appearance, "encode_reference", seen)
    return labels


def part(label: str, image: str, mask: str):
    return run("Parts2WholeMakePart", image=picture(image), label=label, mask=picture(mask))


def labelled(clip, *parts):
    return run("Parts2WholeEncodeLabels", clip=clip, parts={f"part{i}": part for i, part in enumerate(parts)})


def banks(appearance):
    return [bank.tokens for reference in appearance.references for bank in reference.banks.values()]


def equal(a, b):
    return [x.shape for x in banks(a)] == [x.shape for x in banks(b)] and all(map(torch.equal, banks(a), banks(b)))


def test_of_several_parts_only_a_changed_one_is_encoded_again(checkpoint, encoded_labels):
    clip = checkpoint.clip
    face, shoes = (part(label, "ref_0", "mask_0") for label in ("face", "shoes"))
    upper = part("upper body clothes", "ref_1", "mask_1")
    encode(checkpoint, labelled(clip, face, upper))
    changed = encode(checkpoint, labelled(clip, shoes, upper))
    assert encoded_labels == ["face", "upper body clothes", "shoes"]
    assert [reference.label for reference in changed.references] == ["shoes", "upper body clothes"]

    again = encode(checkpoint, labelled(clip, part("shoes", "ref_0", "mask_0"), part("upper body clothes", "ref_1", "mask_1")))
    assert len(encoded_labels) == 5 and equal(changed, again), "other objects are encoded anew, to the same bytes"


def test_another_frame_vae_or_text_is_encoded_again(checkpoint, encoded_labels):
    face = part("face", "ref_0", "mask_0")
    encode(checkpoint, labelled(checkpoint.clip, face))
    encode(checkpoint, labelled(checkpoint.clip, face), height=128)
    other_vae = checkpoint._replace(vae=run("Parts2WholeLoader", checkpoint="tiny")[2])
    encode(other_vae, labelled(checkpoint.clip, face), height=128)
    (other_text,) = labelled(checkpoint.clip, face)
    encode(other_vae, (other_text._replace(text_embedding=other_text.text_embedding + 1),), height=128)
    assert len(encoded_labels) == 4


def test_a_part_that_the_host_dropped_is_forgotten(checkpoint):
    remembered = checkpoint.appearance_encoder.encoded
    gc.collect()
    before = len(remembered)
    face = part("face", "ref_0", "mask_0")
    encode(checkpoint, labelled(checkpoint.clip, face))
    assert len(remembered) == before + 1
    del face
    gc.collect()
    assert len(remembered) == before


def test_one_part_with_the_labels_of_two_text_encoders_is_encoded_with_each(checkpoint):
    """As Outfit Grid puts rows and columns together that come from different Encode Part Labels."""
    (labelled,) = golden_parts(checkpoint.clip, 1)
    other = labelled._replace(text_embedding=labelled.text_embedding + 1)
    references = encode(checkpoint, (labelled, other)).references
    alone = [encode(checkpoint, (each,)).references[0] for each in (labelled, other)]
    for reference, expected in zip(references, alone):
        assert reference.origin == expected.origin
        assert all(torch.equal(bank.tokens, expected.banks[address].tokens) for address, bank in reference.banks.items())
    assert references[0].origin != references[1].origin


def test_a_pooled_text_that_comes_or_goes_is_another(checkpoint):
    (labelled,) = golden_parts(checkpoint.clip, 1)
    for pooled in (None, torch.ones(1, 4), None):
        encode(checkpoint, (labelled._replace(pooled=pooled),))
        kept = checkpoint.appearance_encoder.encoded[labelled.part].pooled
        assert kept is pooled
