"""What travels in a model's options."""

from __future__ import annotations


class Carried:
    """Some nodes deep-copy a model's options in every step: it copies as itself."""

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self
