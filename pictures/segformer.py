"""A SegFormer from its folder, which strangers wrote: only its own classes are built, from known values that fit the weights."""

from __future__ import annotations

import os

from .model_files import read_json, read_tensors, require_fit, require_number

MOST_CLASSES = 1024
MOST_STAGES = 8
LONGEST_SIDE = 2048  # pixels to which the processor may scale
_ACTIVATIONS = ("gelu", "relu", "silu")
_PROCESSING = ("do_resize", "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")


def load_segformer(folder: str, mend: str):
    """The image processor and the model, in float32 on the CPU.

    mend: for errors, what to do
    raises: FileNotFoundError and ValueError that name the file, for what is missing, damaged, or no SegFormer
    """
    # Not above: the server's start need not wait for it.
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

    config = _config(os.path.join(folder, "config.json"), mend)
    processing = _processing(os.path.join(folder, "preprocessor_config.json"), mend)
    path = os.path.join(folder, "model.safetensors")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path} is missing. {mend}")
    weights = read_tensors(path, mend)
    _require_fit(config, weights, folder, mend)
    try:
        # transformers knows the tensors' older names. Without a folder it looks for no other file.
        model, found = SegformerForSemanticSegmentation.from_pretrained(
            None, config=SegformerConfig(**config, attn_implementation="eager"), state_dict=weights, output_loading_info=True,
            local_files_only=True,
        )
        processor = SegformerImageProcessor(**processing)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"The SegFormer in {folder} cannot be loaded ({error}). {mend}") from error
    _require_none_missing(found["missing_keys"], path, mend)
    return processor, model


def _config(path: str, mend: str) -> dict:
    """The known values of a configuration, with which a SegFormer of bounded size is built."""
    config = read_json(path, mend)
    if config.get("model_type") != "segformer":
        raise ValueError(f"{path}: model_type is {config.get('model_type')!r}, expected 'segformer'. {mend}")
    require_number(path, config, "num_encoder_blocks", 1, MOST_STAGES)
    stages = config["num_encoder_blocks"]
    known = {"num_encoder_blocks": stages}
    for name, most in {
        "depths": 64, "hidden_sizes": 4096, "num_attention_heads": 256, "mlp_ratios": 16,
        "patch_sizes": 64, "strides": 64, "sr_ratios": 64,
    }.items():
        require_number(path, config, name, 1, most, count=stages)
        known[name] = config[name]
    require_number(path, config, "decoder_hidden_size", 1, 4096)
    known["decoder_hidden_size"] = config["decoder_hidden_size"]
    if any(size % heads for size, heads in zip(config["hidden_sizes"], config["num_attention_heads"])):
        raise ValueError(f"{path}: hidden_sizes {config['hidden_sizes']} are no multiples of num_attention_heads. {mend}")
    known["hidden_act"] = config.get("hidden_act", "gelu")
    if known["hidden_act"] not in _ACTIVATIONS:
        raise ValueError(f"{path}: hidden_act is not one of {', '.join(_ACTIVATIONS)}. {mend}")
    if "layer_norm_eps" in config:
        require_number(path, config, "layer_norm_eps", 0, 1, whole=False)
        known["layer_norm_eps"] = config["layer_norm_eps"]
    names = config.get("id2label")
    if not isinstance(names, dict) or not 0 < len(names) <= MOST_CLASSES or set(names) != {str(i) for i in range(len(names))} or (
        not all(isinstance(name, str) for name in names.values())
    ):
        raise ValueError(f"{path}: id2label does not name the classes, from 0 on, at most {MOST_CLASSES}. {mend}")
    known["id2label"] = {int(number): name for number, name in names.items()}
    return known


def _processing(path: str, mend: str) -> dict:
    processing = read_json(path, mend)
    size = processing.get("size")
    sides = size if isinstance(size, dict) and set(size) == {"height", "width"} else {"height": size, "width": size}
    for side in sides:
        require_number(path, sides, side, 1, LONGEST_SIDE)
    for name, count, least, most in (
        ("image_mean", 3, 0, 1), ("image_std", 3, 1e-3, 10), ("rescale_factor", None, 0, 1), ("resample", None, 0, 5)
    ):
        if name in processing:
            require_number(path, processing, name, least, most, count, whole=name == "resample")
    return {name: processing[name] for name in _PROCESSING if name in processing} | {"size": sides}


def _require_fit(config: dict, weights: dict, folder: str, mend: str):
    """Before anything is built: the sizes of the configuration against the weights' shapes."""
    stages, path = range(config["num_encoder_blocks"]), os.path.join(folder, "model.safetensors")
    encoder = "segformer.encoder"
    blocks = [(i, j) for i in stages for j in range(config["depths"][i])]
    needed = [
        "decode_head.classifier.weight", *(f"{encoder}.patch_embeddings.{i}.proj.weight" for i in stages),
        *(f"{encoder}.block.{i}.{j}.mlp.dense1.weight" for i, j in blocks),
        *(f"{encoder}.block.{i}.{j}.attention.self.sr.weight" for i, j in blocks if config["sr_ratios"][i] > 1),
    ]
    _require_none_missing([name for name in needed if name not in weights], path, mend)
    embeddings = [weights[f"{encoder}.patch_embeddings.{i}.proj.weight"].shape for i in stages]
    classes, decoder = weights["decode_head.classifier.weight"].shape[:2]
    require_fit(os.path.join(folder, "config.json"), config, {
        "hidden_sizes": [shape[0] for shape in embeddings],
        "patch_sizes": [shape[-1] for shape in embeddings],
        "decoder_hidden_size": decoder,
        "mlp_ratios": [weights[f"{encoder}.block.{i}.0.mlp.dense1.weight"].shape[0] // embeddings[i][0] for i in stages],
        "sr_ratios": [
            weights[f"{encoder}.block.{i}.0.attention.self.sr.weight"].shape[-1] if config["sr_ratios"][i] > 1 else 1
            for i in stages
        ],
    }, mend)
    if classes != len(config["id2label"]):
        raise ValueError(f"{folder}: config.json names {len(config['id2label'])} classes, the weights have {classes}. {mend}")


def _require_none_missing(missing, path: str, mend: str):
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]  # only training counts
    if missing:
        some = ", ".join(sorted(missing)[:8]) + (", ..." if len(missing) > 8 else "")
        raise ValueError(f"{path} lacks {len(missing)} tensors: {some}. {mend}")
