"""Text for edit models, which are told in words which reference picture is what."""

from __future__ import annotations

from collections.abc import Sequence

from .part import Part


def describe_parts(parts: Sequence[Part], prompt: str, sentence: str, first_number: int = 1) -> str:
    """The prompt with a sentence about each picture of each part in the place of {parts}.

    sentence: with {number}, which counts the pictures from `first_number` on, and {label}
    raises: ValueError for a prompt without {parts}, and a sentence without {label}
    """
    if "{parts}" not in prompt:
        raise ValueError("The prompt of Describe Parts has no {parts}: write {parts} where the pictures are to be named.")
    if "{label}" not in sentence:
        raise ValueError("The sentence of Describe Parts has no {label}: write for example 'Image {number}: the {label}.'")
    labels = [part.label for part in parts for _ in part.image]
    sentences = (
        sentence.replace("{number}", str(number)).replace("{label}", label) for number, label in enumerate(labels, first_number)
    )
    return prompt.replace("{parts}", " ".join(sentences))
