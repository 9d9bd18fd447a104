"""Inception features, on which papers compute FID. Slow on a CPU; the weights come from the network."""

import hashlib
import shutil
import urllib.request
from pathlib import Path

import torch
from torch import Tensor

from gan_lightning.files import cache_folder, expand, written_whole
from gan_lightning.images import to_uint8

HASH_PREFIX = "6726825d"  # start of the weights' SHA-256, part of the file name as in torch.hub
WEIGHTS = f"weights-inception-2015-12-05-{HASH_PREFIX}.pth"


class Inception:
    """Inception-v3 as in the original FID (Heusel et al. 2017); network and weights are torch-fidelity's.

    Grey images get three channels, and all are resized to 299x299. F = 2048, K = 1008 classes of ImageNet, which have
    nothing to do with the classes of the data.

    Args:
        weights: file, fetched if it is not there; None: in the folder for downloads.
        fetch: whether missing weights may be fetched.
        device: about 20 images a second on a CPU core, thousands on a GPU.

    Raises:
        ValueError: if torch-fidelity or the weights are missing, or the weights are damaged.
    """

    name = "inception-v3-2015-12-05"
    classifies_data = False
    test_accuracy = float("nan")
    class_shape: tuple[int, ...] = (1008,)

    def __init__(self, weights: str | Path | None = None, fetch: bool = True, device: str = "cpu") -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import (
                URL_INCEPTION_V3,
                FeatureExtractorInceptionV3,
            )
        except ImportError as error:
            raise ValueError(
                "metrics=inception needs the package torch-fidelity: pip install 'gan-lightning[inception]'"
            ) from error
        path = expand(weights or cache_folder("inception") / WEIGHTS, "weights")
        if not path.is_file():
            if not fetch:
                raise ValueError(f"metrics=inception: its weights are missing; put {URL_INCEPTION_V3} at {path}")
            download(URL_INCEPTION_V3, path)
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if not self.sha256.startswith(HASH_PREFIX):
            raise ValueError(
                f"metrics=inception: {path} is damaged, its SHA-256 does not start with {HASH_PREFIX}; "
                f"delete it, and it is fetched again."
            )
        torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity would run any code in it
        self.device = torch.device(device)
        self.network = FeatureExtractorInceptionV3(
            "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
        ).to(self.device)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 1 or 3, H, W) float32 in [-1, 1] -> features (N, 2048) and logits (N, 1008), float32."""
        features, logits = self.network(to_uint8(images).expand(-1, 3, -1, -1))
        return features, logits


def download(url: str, path: Path, timeout: float = 10.0) -> None:
    """Fetch a file whole or not at all; give up if nothing arrives for `timeout` seconds."""
    try:
        with (
            urllib.request.urlopen(url, timeout=timeout) as answer,
            written_whole(path, several_writers=True) as part,
            part.open("wb") as file,
        ):
            shutil.copyfileobj(answer, file)
    except OSError as error:  # URLError and time-outs are OSErrors
        raise ValueError(
            f"metrics=inception: its weights are missing and cannot be fetched ({error}); "
            f"put {url} at {path}, or use metrics=judge."
        ) from error
