"""The label of a part as CLIP text: the cross-attention context of the appearance encoder (arXiv 2404.15267, section 3.2)."""

from __future__ import annotations

import comfy.model_management
import comfy.utils

from ..attention.patch.host.warnings import warn
from ..pictures.part import LabelledPart, Part, escaped

TOKENS = 77


def embed_labels(clip, parts: list[Part]) -> tuple[LabelledPart, ...]:
    """Embeds the label of each part with the given CLIP. A label of more than 77 tokens is cut there, with a warning.

    raises: ValueError for a text encoder that does not read 77 tokens at once, as CLIP does
    """
    progress = comfy.utils.ProgressBar(len(parts))
    labelled = []
    for part in parts:
        comfy.model_management.throw_exception_if_processing_interrupted()
        tokens = _tokens(clip, part.label)
        text_embedding, pooled = clip.encode_from_tokens(tokens, return_pooled=True)
        labelled.append(LabelledPart(part, text_embedding, pooled))
        progress.update(1)
    return tuple(labelled)


def _tokens(clip, label: str) -> dict[str, list]:
    """77 tokens for each text encoder of the CLIP."""
    tokens = clip.tokenize(label)
    for name, chunks in tokens.items():
        for chunk in chunks:
            if len(chunk) != TOKENS:
                raise ValueError(
                    f"The CLIP reads {len(chunk)} tokens at once with its text encoder '{name}', expected {TOKENS}. Connect the "
                    "CLIP that belongs to the appearance encoder: that of SD1.5, SD2.x, SDXL or Load Parts2Whole."
                )
    rest = max((chunks[1:] for chunks in tokens.values()), key=len, default=[])  # SDXL has two encoders, of one vocabulary
    if rest:
        written = ("".join(word for _, word in clip.tokenizer.untokenize(chunk)) for chunk in rest)
        words = "".join(chunk.removeprefix("<|startoftext|>").split("<|endoftext|>")[0] for chunk in written)
        cut = words.replace("</w>", " ").strip()
        warn(f"the label '{escaped(label)}' is longer than 77 tokens; cut off: '{cut}'")
    return {name: chunks[:1] for name, chunks in tokens.items()}
