"""What the benches reach into the pack's patches for. The only file of theirs that names what is not public there."""

from __future__ import annotations

from contextlib import AbstractContextManager
from unittest.mock import patch

from comfy.model_patcher import ModelPatcher
from parts2whole.attention.patch import step
from parts2whole.attention.patch.apply import record
from parts2whole.attention.patch.host.unet import transformer_blocks
from parts2whole.attention.patch.run import RUN, SAMPLED

__all__ = ["bias_in_a_mask", "in_both_halves", "project_again", "recorded", "transformer_blocks"]


def recorded(model: ModelPatcher) -> ModelPatcher:
    """A clone that records the attribution, with a recorder of its own."""
    return record(model)[0]


def project_again(transformer_options: dict):
    """For a step: the references' keys and values are not there yet."""
    transformer_options.pop(RUN)


def in_both_halves(transformer_options: dict):
    """For a step: the unconditional half attends to the references as well."""
    sampled = transformer_options[SAMPLED]
    transformer_options[SAMPLED] = sampled._replace(positive=(True,) * len(sampled.positive))


def bias_in_a_mask(mask: bool) -> AbstractContextManager:
    """Inside, the logits' bias goes into a mask, or into wider heads."""
    return patch.object(step, "takes_mask", lambda *args: mask)
