"""Training, side by side with the plain fastai script and with the bare network: posters a second, all layers learning.

    python benchmarks/bench_train.py            # minutes on a CPU
    python benchmarks/bench_train.py --quick    # under 50 s

ResNet-50 at 224 x 224 with random weights, real posters (LOBBYCARD_POSTERS) or drawn ones, interleaved in one run. The peer
reads files as fastai does, augments as fastai does, and trains in the precision that fastai chooses: fp16 on CUDA, fp32
elsewhere. The limit is our network's own step (forward, loss, backward, update; batch norms folded, on a GPU recorded, as while
fitting), precision and batch on one batch that is already where it is needed. The last line is one JSON object.
"""

import copy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
import tyro
from fastai.callback.core import Callback, CancelFitException
from fastai.learner import Learner

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.subjects import LABELS, context, finish, posters
from lobbycard.catalog.pixels import FilePixels, PixelFile
from lobbycard.poster import network as networks
from lobbycard.poster.config import Config
from lobbycard.poster.data import poster_dataloaders, poster_pixels
from lobbycard.poster.folding import fold
from lobbycard.poster.learning import fitting, poster_learner
from lobbycard.poster.patching import patch
from lobbycard.poster.precision import autocast, choose_device, choose_precision
from lobbycard.poster.recording import record

SIZE = (224, 224)
WARM = 2  # steps of each turn that are not counted


def main(
    quick: bool = False,
    batch_size: int | None = None,
    steps: int | None = None,
    rounds: int | None = None,
    n: int | None = None,
    device: str = "auto",
    json_file: Path | None = None,
) -> None:
    """Measure training.

    Args:
        quick: a small batch and few steps; ends within 50 s
        batch_size: of everyone; 64, or 8 with --quick
        steps: counted in each turn; 8 on a CPU, 40 elsewhere, 2 with --quick
        rounds: turns of each; 3, or 1 with --quick
        n: posters to train on; 1,024, or 128 with --quick
        device: auto, cuda or cpu
        json_file: also write the last line there
    """
    where = choose_device(device)
    batch_size = batch_size or (8 if quick else 64)
    steps = steps or (2 if quick else 8 if where.type == "cpu" else 40)
    rounds, n = rounds or (1 if quick else 3), max(n or (128 if quick else 1024), batch_size * (steps + WARM + 1))
    config = Config(batch_size=batch_size, mixup=0.4)
    precision = choose_precision(where)
    with TemporaryDirectory() as scratch:
        frame = a_table(n, Path(scratch))
        ours, peer = our_learner(frame, config, where, precision), fastai_learner(frame, batch_size, where)
        turns = {
            "ours": lambda: steps_of(ours, config, where, steps),
            "peer": lambda: steps_of(peer, None, where, steps),
            "limit": bare_steps(ours, where, precision, steps),
        }
        seconds: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(rounds):
            for name, turn in turns.items():
                seconds[name].append(turn())
        pixels = random_access([Path(path) for path in frame["path"]])
        reading = {name: read_alone(learn) for name, learn in (("ours", ours), ("peer", peer))}
    rates = {name: round(steps * batch_size / statistics.median(taken), 2) for name, taken in seconds.items()}
    found = {
        **rates,
        "ratio_peer": round(rates["ours"] / rates["peer"], 3),
        "ratio_limit": round(rates["ours"] / rates["limit"], 3),
        "unit": "posters/s",
        "by_turn": {name: [round(steps * batch_size / s, 2) for s in taken] for name, taken in seconds.items()},
        "reading_alone": reading,
        "random_access": pixels,
        "device": torch.cuda.get_device_name() if where.type == "cuda" else where.type,
        "precision": {"ours": precision, "peer": "fp16" if where.type == "cuda" else "fp32"},
        "batch_size": batch_size,
        "posters": len(frame),
        **context(seed=0),
    }
    print_table(found)
    finish(found, json_file)


def a_table(n: int, folder: Path) -> pd.DataFrame:
    """N posters as files of their own, each with genres at random: what they are does not change the speed."""
    pictures = posters(min(n, 4096), folder / "drawn")
    rng = np.random.default_rng(0)
    images = folder / "images"
    images.mkdir()
    paths = [images / f"{i:06d}.jpg" for i in range(n)]
    for i, path in enumerate(paths):
        path.write_bytes(pictures[i % len(pictures)])
    given = [tuple(np.array(LABELS)[np.sort(rng.choice(len(LABELS), 2, replace=False))]) for _ in range(n)]
    return pd.DataFrame({"path": paths, "labels": given, "is_valid": np.arange(n) < 16})


def our_learner(frame: pd.DataFrame, config: Config, device: torch.device, precision: str) -> Learner:
    """As the trainer makes it, all layers learning."""
    torch.manual_seed(0)
    network = networks.build(networks.Architecture("torchvision", "resnet50"), len(LABELS))
    pixels = poster_pixels([Path(path) for path in frame["path"]], Path(frame["path"][0]).parent, SIZE)
    dls = poster_dataloaders(
        frame, LABELS, pixels, networks.IMAGENET_MEAN, networks.IMAGENET_STD, config.batch_size, device
    )
    learn = poster_learner(dls, network, config, device, precision, Path(frame["path"][0]).parent)
    learn.unfreeze()
    return learn


def fastai_learner(frame: pd.DataFrame, batch_size: int, device: torch.device) -> Learner:
    """The plain script, all layers learning."""
    from fastai.losses import BCEWithLogitsLossFlat
    from fastai.vision.augment import Resize, aug_transforms
    from fastai.vision.data import ImageDataLoaders
    from fastai.vision.learner import vision_learner
    from torchvision.models import resnet50

    rows = frame.assign(
        file=[Path(path).name for path in frame["path"]], genres=["|".join(row) for row in frame["labels"]]
    )
    dls = ImageDataLoaders.from_df(
        rows[["file", "genres", "is_valid"]], path=Path(frame["path"][0]).parent, label_delim="|", valid_col="is_valid",
        item_tfms=Resize(SIZE[0]), batch_tfms=aug_transforms(), bs=batch_size, device=device,
    )  # fmt: skip
    learn = vision_learner(dls, resnet50, pretrained=False, loss_func=BCEWithLogitsLossFlat())
    learn.unfreeze()
    return learn.to_fp16() if device.type == "cuda" else learn


class Steps(Callback):
    """Ends the fit after some steps, and times those after the first `WARM`."""

    order = 90

    def __init__(self, steps: int, device: torch.device):
        self.left, self.steps, self.wait = steps + WARM, steps, waiting(device)

    def after_batch(self):
        self.left -= 1
        if self.left == self.steps:
            self.wait()
            self.began = time.perf_counter()
        if self.left == 0:
            self.wait()
            self.seconds = time.perf_counter() - self.began
            raise CancelFitException


def steps_of(learn: Learner, config: Config | None, device: torch.device, steps: int) -> float:
    """Seconds of so many steps, reading included; with a `config`, under what a run of ours asks of PyTorch (determinism)."""
    timer = Steps(steps, device)
    with fitting(learn, config) if config else learn.no_bar(), learn.no_logging():
        learn.fit(1, cbs=timer)
    return timer.seconds


def bare_steps(learn: Learner, device: torch.device, precision: str, steps: int) -> Callable[[], float]:
    """The same on one batch in memory, without fastai: our network, computed as while fitting, its precision and optimiser."""

    network = copy.deepcopy(learn.model).to(device, memory_format=torch.channels_last).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    fold(network)
    half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    loss_of, wait = torch.nn.BCEWithLogitsLoss(), waiting(device)
    x, y = (part.as_subclass(torch.Tensor) for part in learn.dls.one_batch())
    if half is not None:
        patch(network, autocast, half)
    if device.type == "cuda":
        record(network, tuple(x.shape), device)

    def step() -> None:
        logits = network(x)
        scaler.scale(loss_of(logits.float(), y)).backward()
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad()

    def turn() -> float:
        for _ in range(WARM):
            step()
        wait()
        began = time.perf_counter()
        for _ in range(steps):
            step()
        wait()
        return time.perf_counter() - began

    return turn


def read_alone(learn: Learner) -> float:
    """Posters a second that the loader gives where nothing is trained, augmented and on the device."""
    loader, wait = learn.dls.train, waiting(learn.dls.device)
    done, began, most = 0, None, 2
    for x, _ in loader:
        if began is None:
            wait()
            began = time.perf_counter()
        else:
            done += len(x)
        if done and time.perf_counter() - began > most:
            break
    wait()
    return round(done / (time.perf_counter() - began), 1)


def random_access(paths: list[Path]) -> dict[str, float]:
    """Posters a second, 64 at a time in random order, on one thread: decoded from their files, and from the packed file."""
    packed, decoded = PixelFile(paths[0].parent, SIZE).open(paths), FilePixels(paths, SIZE, threads=1)
    rates = {}
    for name, pixels, rounds in (("packed", packed, 40), ("decoded", decoded, 2)):
        draws = np.random.default_rng(0).integers(0, len(paths), (rounds, 64))
        pixels.take(draws[0])
        began = time.perf_counter()
        for rows in draws:
            pixels.take(rows)
        rates[name] = round(draws.size / (time.perf_counter() - began), 1)
    return {**rates, "ratio": round(rates["packed"] / rates["decoded"], 1)}


def waiting(device: torch.device) -> Callable[[], Any]:
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def print_table(found: dict[str, Any]) -> None:
    """For people."""
    print(f"\n{found['device']}, batches of {found['batch_size']}, ResNet-50 at {SIZE[0]} x {SIZE[1]}\n")
    names = {"ours": "ours", "peer": "plain fastai script", "limit": "the network's own step"}
    print(f"  {'':<26}{'posters/s':>10}  {'by turn':<30}{'reading alone':>14}")
    for key, name in names.items():
        turns = ", ".join(f"{rate:g}" for rate in found["by_turn"][key])
        print(f"  {name:<26}{found[key]:>10}  {turns:<30}{found['reading_alone'].get(key, ''):>14}")
    pixels = found["random_access"]
    print(f"\n  pixels, one thread: {pixels['packed']:,.0f} from the packed file, {pixels['decoded']:,.0f} decoded")
    print(f"\n  {found['ratio_peer']} of the peer, {found['ratio_limit']} of the limit\n")


if __name__ == "__main__":
    tyro.cli(main)
