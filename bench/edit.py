"""What masked references of edit models cost: Flux and Qwen-Image at the width of their heads and blocks, a few layers deep."""

from __future__ import annotations

import math
from functools import partial

import torch
from harness.edit_models import FLUX, KINDS, edit_model
from harness.workbench import rel
from parts2whole.attention.edit.apply import apply_references
from parts2whole.attention.edit.references import add_references
from timing import GPU, Time, compare, seconds_of, show

SHAPES = {
    "flux": FLUX | {
        "vec_in_dim": 768, "context_in_dim": 4096, "hidden_size": 3072, "mlp_ratio": 4.0, "num_heads": 24, "axes_dim": [16, 56, 56],
    },
    "qwen": KINDS["qwen"][1] | {
        "attention_head_dim": 128, "num_attention_heads": 24, "joint_attention_dim": 3584, "axes_dims_rope": (16, 56, 56),
    },
}
CHANNELS = {"flux": 4096, "qwen": 3584}
TEXT, COVERAGES = 128, (0.52, 0.32, 0.21)


class Hidden:
    """The nearest other way: all tokens stay, and an additive mask hides those outside of the masks from every query."""

    def __init__(self, kept: torch.Tensor):
        self.kept = kept

    def __call__(self, attention, q, k, v, heads, *args, **kwargs):
        bias = torch.zeros(k.shape[-2], dtype=q.dtype, device=q.device)
        bias[-len(self.kept):][~self.kept] = -torch.inf
        kwargs["mask"] = bias.expand(1, 1, q.shape[-2], -1)
        return attention(q, k, v, heads, **kwargs)


class Step:
    """Single calls of a model of one shape. side: of the target's and of each reference's square of tokens"""

    def __init__(self, kind: str, side: int, dtype: torch.dtype):
        self.kind, self.side = kind, side
        deep = {"hidden_size": 512, "num_heads": 4, "mlp_ratio": 4.0} if not GPU and kind == "flux" else {}
        narrow = {"num_attention_heads": 4} if not GPU and kind == "qwen" else {}
        self.model = edit_model(kind, dtype, **(SHAPES[kind] | deep | narrow))
        self.model.model.to("cuda" if GPU else "cpu")
        generator = torch.Generator().manual_seed(0)
        self.text = torch.randn(1, TEXT, CHANNELS[kind], generator=generator)
        self.target = self._latent(generator)
        self.references = [self._latent(generator) for _ in COVERAGES]

    def _latent(self, generator: torch.Generator) -> torch.Tensor:
        shape = KINDS[self.kind][2]
        return torch.randn(1, *shape, 2 * self.side, 2 * self.side, generator=generator)

    def masks(self) -> list[torch.Tensor]:
        """Discs of these coverages: [h, w] of the latent, bool, in whole tokens"""
        ys, xs = (torch.arange(self.side) - self.side / 2 + 0.5 for _ in range(2))
        distance = (ys[:, None] ** 2 + xs[None] ** 2).sqrt()
        discs = [distance <= self.side * math.sqrt(coverage / math.pi) for coverage in COVERAGES]
        return [disc.repeat_interleave(2, 0).repeat_interleave(2, 1) for disc in discs]

    def conds(self, latents, masks=None) -> dict:
        """What the host hands to the model for these references."""
        conds = {"c_crossattn": self.text}
        if latents:
            conds["ref_latents"] = [self.model.model.process_latent_in(latent) for latent in latents]
        if masks is not None:
            [[_, values]] = add_references([[self.text, {}]], [(str(i), *each) for i, each in enumerate(zip(latents, masks))])
            conds |= {name: cond.cond for name, cond in values["model_conds"].items()}
        if self.kind == "flux":
            conds |= {"y": torch.zeros(1, 768), "guidance": None}
        return conds

    def run(self, model, conds) -> torch.Tensor:
        options = {**model.model_options["transformer_options"], "cond_or_uncond": [0]}
        device = "cuda" if GPU else "cpu"
        for name, cond in conds.items():
            if isinstance(cond, list):
                conds = {**conds, name: [each.to(device) for each in cond]}
            elif torch.is_tensor(cond):
                conds = {**conds, name: cond.to(device)}
        x, sigma = self.target.to(device), torch.full((1,), 0.5, device=device)
        return self.model.model.apply_model(x, sigma, transformer_options=options, **conds)


def cases(step: Step) -> dict:
    """By name the model and its references."""
    masks, ours = step.masks(), apply_references(step.model)
    cropped, cropped_masks = [], []
    for latent, mask in zip(step.references, masks):
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        box = ..., slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
        cropped.append(latent[box])
        cropped_masks.append(mask[box[1:]])
    hidden = step.model.clone()
    kept = torch.cat([mask[::2, ::2].flatten() for mask in masks]).to("cuda" if GPU else "cpu")
    hidden.model_options["transformer_options"]["optimized_attention_override"] = Hidden(kept)
    return {
        "no reference": (step.model, step.conds([])),
        "1 whole": (step.model, step.conds(step.references[:1])),
        "3 whole": (step.model, step.conds(step.references)),
        "3 masked": (ours, step.conds(step.references, masks)),
        "3 cropped": (step.model, step.conds(cropped)),
        "3 cropped and masked": (ours, step.conds(cropped, cropped_masks)),
        "3 hidden by an additive mask": (hidden, step.conds(step.references)),
    }


def bench_edit(plain, options) -> dict:
    """One call of Flux's and of Qwen-Image's blocks with as many tokens for each reference as for the target."""
    rows, side = {}, 64 if GPU else 32
    for kind in SHAPES:
        step = Step(kind, side, getattr(torch, options.dtype))
        each = cases(step)
        masked, hidden = (step.run(*each[name]) for name in ("3 masked", "3 hidden by an additive mask"))
        print(f"\n{kind}: masked and hidden differ by {rel(masked, hidden):.1e}.")
        assert rel(masked, hidden) < (1e-5 if options.dtype == "float32" else 5e-2)

        def take(model, conds, step=step) -> Time:
            return seconds_of(lambda: step.run(model, conds))

        found = compare({name: partial(take, *case) for name, case in each.items()}, options.rounds, "no reference")
        show(f"{kind}: {side * side} tokens of the target and of each reference, against no reference", found)
        rows |= {f"{kind}: {name}": row for name, row in found.items()}
    return rows
