"""The training loop, on accelerate: one process or many, mixed precision, accumulation, EMA, resume, TensorBoard.

Batch, noise and dropout of a step depend on (seed, step, process) alone, so a resumed run takes the very same steps.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration, set_seed
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, Sampler
from tqdm.auto import tqdm

from .config import LoopConfig

STATE = "state"
EMA_FILE = "ema.safetensors"
STEP_FILE = "step.json"


class StepSampler(Sampler[list[int]]):
    """The samples of each step of one process, from `first_step` on: every epoch another permutation of all samples."""

    def __init__(self, samples: int, seed: int, batch_size: int, process: int, processes: int, first_step: int, steps: int):
        self.samples, self.seed, self.batch_size = samples, seed, batch_size
        self.process, self.processes, self.first_step, self.steps = process, processes, first_step, steps

    def __len__(self) -> int:
        return self.steps - self.first_step

    def __iter__(self) -> Iterator[list[int]]:
        orders = {}
        for step in range(self.first_step, self.steps):
            start = (step * self.processes + self.process) * self.batch_size
            batch = []
            for position in range(start, start + self.batch_size):
                epoch, place = divmod(position, self.samples)
                if epoch not in orders:
                    orders = {epoch: np.random.default_rng([self.seed, epoch]).permutation(self.samples)}
                batch.append(int(orders[epoch][place]))
            yield batch


def fit(
    module: torch.nn.Module,
    dataset,
    collate: Callable[[list], Any],
    config: LoopConfig,
    save: Callable[[torch.nn.Module, Path], None],
    preview: Callable[[torch.nn.Module], dict[str, torch.Tensor]],
) -> None:
    """Trains the parameters of `module` that require gradients.

    module: called with a collated batch and a torch.Generator; returns the losses by name, that to minimise under `loss`
    save: writes the trained networks into a folder
    preview: pictures by name, [3, H, W] in 0..1
    A run that was broken off goes on from its last saved state.
    """
    output = Path(config.output)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision, gradient_accumulation_steps=config.gradient_accumulation, log_with="tensorboard",
        project_config=ProjectConfiguration(project_dir=str(output), logging_dir=str(output / "tensorboard")),
        # A batch whose references are all dropped does not use the reference U-Net.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    set_seed(config.seed)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    # accelerate steps a schedule once for each process.
    scheduler = get_scheduler(
        config.learning_rate_schedule, optimizer, num_warmup_steps=config.warmup_steps * accelerator.num_processes,
        num_training_steps=config.steps * accelerator.num_processes,
    )
    module, optimizer, scheduler = accelerator.prepare(module, optimizer, scheduler)
    ema = EMAModel(trained, decay=config.ema_decay, use_ema_warmup=True, power=0.75) if config.ema_decay else None
    accelerator.init_trackers("losses")

    steps = min(config.steps, config.stop_after or config.steps)
    first_step = _resume(accelerator, output / STATE, ema)
    micro_steps = config.gradient_accumulation
    loader = DataLoader(
        dataset,
        batch_sampler=StepSampler(
            len(dataset), config.seed, config.batch_size, accelerator.process_index, accelerator.num_processes,
            first_step * micro_steps, steps * micro_steps,
        ),
        collate_fn=collate, num_workers=config.workers, persistent_workers=config.workers > 0,
    )
    progress = tqdm(total=steps, initial=first_step, disable=not accelerator.is_local_main_process, mininterval=5)
    began, sums, count = time.monotonic(), {}, 0
    for i, batch in enumerate(loader):
        micro_step = first_step * micro_steps + i
        step = micro_step // micro_steps
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence([config.seed, micro_step, accelerator.process_index]).generate_state(1)[0])
        )
        with accelerator.accumulate(module):
            losses = module(batch, generator)
            accelerator.backward(losses["loss"])
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(trained, config.max_gradient_norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value.detach().float()
        count += 1
        if not accelerator.sync_gradients:
            continue

        step += 1
        if ema:
            ema.step(trained)
        progress.update()
        if step % config.log_every == 0:
            means = {name: float(accelerator.reduce(value, "mean")) / count for name, value in sums.items()}
            sums, count = {}, 0
            means["learning_rate"] = scheduler.get_last_lr()[0]
            accelerator.log(means, step=step)
            progress.set_postfix(loss=f"{means['loss']:.4f}")
            if accelerator.is_main_process:
                row = {"step": step, "seconds": round(time.monotonic() - began, 1), **means}
                with (output / "log.jsonl").open("a") as log:
                    log.write(json.dumps({name: round(value, 6) for name, value in row.items()}) + "\n")
        last = step == steps
        if accelerator.is_main_process and (last or step % config.preview_every == 0):
            with _averaged(ema, trained):
                for name, picture in preview(accelerator.unwrap_model(module)).items():
                    accelerator.get_tracker("tensorboard").writer.add_image(name, picture, step)
        if last or step % config.save_every == 0:
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                with _averaged(ema, trained):
                    save(accelerator.unwrap_model(module), output)
            _save_state(accelerator, output / STATE, ema, step)
    accelerator.end_training()


class _averaged:
    """Puts the averaged weights in place."""

    def __init__(self, ema: EMAModel | None, trained: list[torch.nn.Parameter]):
        self.ema, self.trained = ema, trained

    def __enter__(self):
        if self.ema:
            self.ema.store(self.trained)
            self.ema.copy_to(self.trained)

    def __exit__(self, *_):
        if self.ema:
            self.ema.restore(self.trained)


def _save_state(accelerator: Accelerator, folder: Path, ema: EMAModel | None, step: int):
    """Weights, optimizer and schedule into a new folder, which then takes the place of the last one."""
    new = folder.with_name(folder.name + ".new")
    if accelerator.is_main_process:
        shutil.rmtree(new, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(new))
    if accelerator.is_main_process:
        if ema:
            save_file(
                {str(i): parameter.contiguous() for i, parameter in enumerate(ema.shadow_params)}, new / EMA_FILE
            )
        (new / STEP_FILE).write_text(json.dumps({"step": step}))
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    accelerator.wait_for_everyone()


def _resume(accelerator: Accelerator, folder: Path, ema: EMAModel | None) -> int:
    """The number of steps that were taken already."""
    new = folder.with_name(folder.name + ".new")
    if not folder.exists() and (new / STEP_FILE).exists():  # broken off while it took the last one's place
        folder = new
    if not (folder / STEP_FILE).exists():
        return 0
    accelerator.load_state(str(folder))
    step = json.loads((folder / STEP_FILE).read_text())["step"]
    if ema:
        averages = load_file(folder / EMA_FILE)
        ema.shadow_params = [averages[str(i)].to(accelerator.device) for i in range(len(averages))]
        ema.optimization_step = step
    accelerator.print(f"Goes on after step {step}.")
    log = folder.parent / "log.jsonl"
    if accelerator.is_main_process and log.exists():  # rows of steps that are taken again
        rows = [row for row in log.read_text().splitlines() if json.loads(row)["step"] <= step]
        log.write_text("".join(f"{row}\n" for row in rows))
    return step
