"""A toy to train: paper dolls of 64x96 pixels and small networks. Its fixtures are in toy_fixtures."""

from harness.host import GOLDEN, ROOT

from training.config import TrainConfig, load_config
from training.dataset import open_dataset
from training.model import encode_batch
from training.networks import build_networks
from training.train import Encoded, collate

CONFIGS = ROOT / "training" / "configs"
TOKENIZER = GOLDEN / "checkpoint" / "tokenizer"
SMALL = (
    "data.paper_dolls=6", "data.width=64", "data.height=96", "data.cache_latents=true", "loop.workers=0", "loop.batch_size=2",
    "loop.save_every=2", "loop.preview_every=100", "loop.log_every=1", "noises=2", "dropout.all_references=0.05",
    "dropout.each_reference=0.3", "hints=0.3", "region_weight=10", "kinds=10", "patterns=5", "colours=true",
    "detail_weight=9", "new.unet.block_out_channels=[32,32]",
    "new.unet.down_block_types=[CrossAttnDownBlock2D,CrossAttnDownBlock2D]",
    "new.unet.up_block_types=[CrossAttnUpBlock2D,CrossAttnUpBlock2D]", f"new.tokenizer={TOKENIZER}",
)


def toy_config(vae_folder, *settings):
    settings = [*SMALL, f"pretrained={vae_folder}", "loop.output=unused", *settings]
    return load_config(TrainConfig, CONFIGS / "paper_doll.yaml", settings)


def prepare(config, pictures=2):
    """Networks, a dataset and its first batch."""
    networks = build_networks(config)
    encoded = Encoded(open_dataset(config.data), networks, config)
    return networks, encoded, encode_batch(networks.vae, collate([encoded[i] for i in range(pictures)]))
