"""The label of a part as CLIP text: the cross-attention context of the appearance encoder (arXiv 2404.15267, section 3.2)."""

from __future__ import annotations

import logging

import comfy.model_management
import comfy.utils

from ..pictures.part import LabelledPart, Part, escaped

TOKENS = 77


def embed_labels(clip, parts: list[Part]) -> tuple[LabelledPart, ...]:
    """Embeds the label of each part with the given CLIP."""
    progress = comfy.utils.ProgressBar(len(parts))
    labelled = []
    for part in parts:
        comfy.model_management.throw_exception_if_processing_interrupted()
        labelled.append(embed_label(clip, part))
        progress.update(1)
    return tuple(labelled)


def embed_label(clip, part: Part) -> LabelledPart:
    """Embeds the label with the given CLIP. A label of more than 77 tokens is cut there, with a warning.

    raises: ValueError for a text encoder that does not read 77 tokens at once, as CLIP does
    """
    tokens = clip.tokenize(part.label)
    for name, chunks in tokens.items():
        for chunk in chunks:
            if len(chunk) != TOKENS:
                raise ValueError(
                    f"The CLIP reads {len(chunk)} tokens at once with its text encoder '{name}', expected {TOKENS}. Connect the "
                    "CLIP that belongs to the appearance encoder: that of SD1.5, SD2.x, SDXL or Load Parts2Whole."
                )
    for name, chunks in tokens.items():
        if len(chunks) > 1:
            words = "".join(word for chunk in chunks[1:] for _, word in clip.tokenizer.untokenize(chunk))
            cut = words.replace("<|startoftext|>", "").split("<|endoftext|>")[0].replace("</w>", " ").strip()
            logging.warning("Parts2Whole: the label '%s' is longer than 77 tokens; cut off: '%s'", escaped(part.label), cut)
            tokens[name] = chunks[:1]
    text_embedding, pooled = clip.encode_from_tokens(tokens, return_pooled=True)
    return LabelledPart(part, text_embedding, pooled)
