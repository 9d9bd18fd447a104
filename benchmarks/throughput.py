"""Images per second of this project beside plain PyTorch, on the same MNIST: `make bench`.

tutorial   a loop as tutorials write it: one image at a time through PIL, ToTensor and Normalize; BCELoss; plain Adam
lightning  a LightningModule as tutorials write it: the same with worker processes, toggle_optimizer, a progress bar
by hand    a loop that knows all the project knows: uint8 data on the device, losses on logits, fused Adam, D frozen
project    `python -m gan_lightning`, same networks and objective, with its default logging, pictures and checkpoints
default    `python -m gan_lightning` as it comes: R1 and an averaged generator on top

On a GPU, if there is one: then `project` and `default` run with `cuda_graph=true` as well, and the table has
the milliseconds of a step by CUDA's events, and how many calls of the host (kernels, copies, graphs) a step starts.

All without scores; what those cost is measured apart: the seconds of the default's second evaluation (a run's first one
scores the control as well) over those of the epochs from one evaluation to the next.

Every measurement is a process of its own, and the contestants take turns, so that a busy machine slows all of them. The
clock runs from iteration `--warmup` for `--iterations`. Epochs are shortened to these where they are fewer, so that an
epoch's picture and checkpoint are always in it. A ratio is the median of the ratios within a round.

    python benchmarks/throughput.py [--model mlp|dcgan] [--rounds 5] [--iterations 936] [--check] [key=value ...]

key=value goes to the project: data.root=<folder>, for one.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import softplus

HERE = Path(__file__).resolve().parent
LATENT_DIM = 100
BATCH_SIZE = 128
PRINT_EVERY = 200  # iterations
MAX_MEMORY_GB = 2.0

NO_SCORES = "metrics=none"  # the contestants have none either
SAME_OBJECTIVE = ["reuse_fake=true", "penalty=none", "ema=null", f"data.batch_size={BATCH_SIZE}"]
PROJECT = {
    "mlp": {"project": ["experiment=mlp_day24", NO_SCORES], "default": [NO_SCORES]},
    "dcgan": {"project": ["model=dcgan", "model.discriminator.batch_norm=true", *SAME_OBJECTIVE, NO_SCORES]},
}
# (contestant, opponent): the least ratio of their images per second, on two CPU cores
CPU_TARGETS = {
    "mlp": {("project", "tutorial"): 2.2, ("project", "by hand"): 0.95, ("default", "tutorial"): 1.0},
    "dcgan": {("project", "tutorial"): 1.0, ("project", "by hand"): 0.95},
}
GPU_TARGETS = {"mlp": {("project, graph", "lightning"): 5.0}, "dcgan": {("project, graph", "lightning"): 2.0}}
MOST_FOR_SCORES = 0.10  # of the training time between two evaluations
EPOCH = 468  # iterations, of MNIST
ROUNDS = 5
COUNTED = 10  # iterations whose launches are counted, after the timed ones

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
ITERATIONS = {"mlp": 2 * EPOCH, "dcgan": 2 * EPOCH if ON_GPU else 100}
TARGETS = GPU_TARGETS if ON_GPU else CPU_TARGETS
if ON_GPU:
    for contestants in PROJECT.values():
        contestants |= {f"{name}, graph": [*told, "cuda_graph=true"] for name, told in contestants.items()}


# --- The contestants ---------------------------------------------------------------------------------------


def networks(model: str, last: list[nn.Module]) -> tuple[nn.Sequential, nn.Sequential]:
    """Generator and discriminator, written out; `last` goes behind D's logit."""
    if model == "mlp":
        return nn.Sequential(
            nn.Linear(LATENT_DIM, 256), nn.ReLU(),
            nn.Linear(256, 512), nn.ReLU(),
            nn.Linear(512, 784), nn.Tanh(), nn.Unflatten(1, (1, 28, 28)),
        ), nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, 512), nn.LeakyReLU(0.2),
            nn.Linear(512, 256), nn.LeakyReLU(0.2),
            nn.Linear(256, 1), nn.Flatten(0), *last,
        )  # fmt: skip
    pair = nn.Sequential(
        nn.Unflatten(1, (LATENT_DIM, 1, 1)),
        nn.ConvTranspose2d(LATENT_DIM, 128, 7, bias=False), nn.BatchNorm2d(128), nn.ReLU(True),
        nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(True),
        nn.ConvTranspose2d(64, 1, 4, stride=2, padding=1), nn.Tanh(),
    ), nn.Sequential(
        nn.Conv2d(1, 64, 4, stride=2, padding=1), nn.LeakyReLU(0.2, True),
        nn.Conv2d(64, 128, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(128), nn.LeakyReLU(0.2, True),
        nn.Conv2d(128, 1, 7), nn.Flatten(0), *last,
    )  # fmt: skip
    for network in pair:
        network.apply(dcgan_weights)
    return pair


def dcgan_weights(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)


def tutorial(model: str, root: Path, images: Tensor) -> Iterator[int]:
    """Train as tutorials do; yields the number of iterations done."""
    loader = tutorial_loader(root)
    generator, discriminator = (network.to(DEVICE) for network in networks(model, last=[nn.Sigmoid()]))
    criterion = nn.BCELoss()
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-4)
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4)
    iteration = 0
    while True:
        for real, _ in loader:
            real = real.to(DEVICE)
            ones, zeros = torch.ones(len(real), device=DEVICE), torch.zeros(len(real), device=DEVICE)
            fake = generator(torch.randn(len(real), LATENT_DIM, device=DEVICE))

            d_optimizer.zero_grad()
            d_loss = criterion(discriminator(real), ones) + criterion(discriminator(fake.detach()), zeros)
            d_loss.backward()
            d_optimizer.step()

            g_optimizer.zero_grad()
            g_loss = criterion(discriminator(fake), ones)
            g_loss.backward()
            g_optimizer.step()

            iteration += 1
            if iteration % PRINT_EVERY == 0:
                print(f"iteration {iteration}: D loss {d_loss.item():.4f}, G loss {g_loss.item():.4f}", flush=True)
            yield iteration


def tutorial_loader(root: Path, **settings: Any) -> torch.utils.data.DataLoader:
    """Batches of MNIST through torchvision, an image at a time."""
    from torchvision import datasets, transforms

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    with tempfile.TemporaryDirectory() as folder:  # torchvision wants the files in a folder of its own layout
        raw = Path(folder) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for file in root.rglob("*-ubyte"):
            (raw / file.name).symlink_to(file)
        dataset = datasets.MNIST(folder, train=True, transform=transform)
    return torch.utils.data.DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True, drop_last=True, **settings)


class TutorialModule(LightningModule):
    """A GAN as tutorials write it for Lightning: optimizers toggled, both losses logged at every step."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminator = networks(model, last=[])

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adam(network.parameters(), lr=2e-4) for network in (self.generator, self.discriminator)]

    def loss(self, logits: Tensor, target: float) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        real, _ = batch
        g_optimizer, d_optimizer = self.optimizers()
        z = torch.randn(len(real), LATENT_DIM).type_as(real)

        self.toggle_optimizer(g_optimizer)
        g_loss = self.loss(self.discriminator(self.generator(z)), 1.0)
        self.log("g_loss", g_loss, prog_bar=True)
        self.manual_backward(g_loss)
        g_optimizer.step()
        g_optimizer.zero_grad()
        self.untoggle_optimizer(g_optimizer)

        self.toggle_optimizer(d_optimizer)
        fake = self.generator(z).detach()
        d_loss = (self.loss(self.discriminator(real), 1.0) + self.loss(self.discriminator(fake), 0.0)) / 2
        self.log("d_loss", d_loss, prog_bar=True)
        self.manual_backward(d_loss)
        d_optimizer.step()
        d_optimizer.zero_grad()
        self.untoggle_optimizer(d_optimizer)


def lightning(model: str, root: Path, stopwatch: Callback) -> None:
    """Train as Lightning's tutorials do, until the stopwatch stops it."""
    workers = (os.cpu_count() or 2) // 2
    loader = tutorial_loader(root, num_workers=workers, persistent_workers=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(accelerator="auto", devices=1, max_epochs=-1, callbacks=[stopwatch], default_root_dir=folder)
        trainer.fit(TutorialModule(model), loader)


def by_hand(model: str, root: Path, images: Tensor) -> Iterator[int]:
    """Train with all that is known to be fast, and nothing around it; yields the number of iterations done."""
    generator, discriminator = (network.to(DEVICE) for network in networks(model, last=[]))
    images = images.to(DEVICE)
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-4, fused=True)
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4, fused=True)
    iteration = 0
    while True:
        order = torch.randperm(len(images), device=DEVICE)
        for rows in order[: len(order) // BATCH_SIZE * BATCH_SIZE].split(BATCH_SIZE):
            real = images.index_select(0, rows).float().div_(127.5).sub_(1)
            fake = generator(torch.randn(BATCH_SIZE, LATENT_DIM, device=DEVICE))

            d_loss = softplus(-discriminator(real)).mean() + softplus(discriminator(fake.detach())).mean()
            d_optimizer.zero_grad()
            d_loss.backward()
            d_optimizer.step()

            discriminator.requires_grad_(False)
            g_loss = softplus(-discriminator(fake)).mean()
            g_optimizer.zero_grad()
            g_loss.backward()
            g_optimizer.step()
            discriminator.requires_grad_(True)

            iteration += 1
            if iteration % PRINT_EVERY == 0:
                print(f"iteration {iteration}: D loss {d_loss.item():.4f}, G loss {g_loss.item():.4f}", flush=True)
            yield iteration


class Clock:
    """Writes into `path` how long the iterations from `warmup` for `iterations` more take, as JSON.

    seconds      of all of them
    step_ms      on a GPU: median between the ends of two, by CUDA's events
    launches     on a GPU: calls of a step that start something there, of the COUNTED iterations after them
    """

    def __init__(self, warmup: int, iterations: int, path: str | Path) -> None:
        self.warmup, self.end, self.path = warmup, warmup + iterations, Path(path)
        self.measured: dict[str, float] = {}
        self.events: list[Any] = []

    def tick(self, iteration: int) -> bool:
        """An iteration has been done, the number `iteration`, from 1. Returns whether all is measured."""
        if iteration == self.warmup:
            self.started = now()
        if ON_GPU and self.warmup <= iteration <= self.end:
            self.events.append(torch.cuda.Event(enable_timing=True))
            self.events[-1].record()
        if iteration == self.end:
            self.measured["seconds"] = now() - self.started
            if ON_GPU:
                self.measured["step_ms"] = statistics.median(a.elapsed_time(b) for a, b in pairwise(self.events))
                self.profiler = torch.profiler.profile(acc_events=True)
                self.profiler.start()
        if iteration < self.end + COUNTED * ON_GPU:
            return False
        if ON_GPU:
            torch.cuda.synchronize()
            self.profiler.stop()
            calls = [event.name for event in self.profiler.events()]
            self.measured["launches"] = sum(name.startswith(LAUNCHES) for name in calls) / COUNTED
        self.path.write_text(json.dumps(self.measured))
        return True


LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")


def now() -> float:
    if ON_GPU:
        torch.cuda.synchronize()
    return time.perf_counter()


class Stopwatch(Callback):
    """A clock in a run of Lightning, which it ends."""

    def __init__(self, warmup: int, iterations: int, path: str) -> None:
        self.clock = Clock(warmup, iterations, path)
        self.iteration = 0

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.iteration += 1
        trainer.should_stop |= self.clock.tick(self.iteration)


class EvaluationTime(Callback):
    """Added to a run of the project: writes the seconds of its last evaluation into `path`."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.started = 0.0

    def on_validation_start(self, trainer: Any, gan: Any) -> None:
        self.started = time.perf_counter()

    def on_validation_end(self, trainer: Any, gan: Any) -> None:
        self.path.write_text(str(time.perf_counter() - self.started))


LOOPS = {"tutorial": tutorial, "by hand": by_hand}
OPPONENTS = ("tutorial", "lightning", "by hand")


def run_worker(name: str, model: str, overrides: list[str], warmup: int, iterations: int, path: Path) -> None:
    """One contestant that is not the project, in this process."""
    root, images = load_images(overrides)
    if name == "lightning":
        return lightning(model, root, Stopwatch(warmup, iterations, str(path)))
    clock = Clock(warmup, iterations, path)
    for iteration in LOOPS[name](model, root, images):
        if clock.tick(iteration):
            break


# --- The race ----------------------------------------------------------------------------------------------


def measure(name: str, model: str, warmup: int, iterations: int, overrides: list[str]) -> dict[str, float]:
    """Images per second and peak memory of one contestant in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path, output = Path(folder) / "seconds", Path(folder) / "output"
        if name in OPPONENTS:
            command = [__file__, "--worker", name, "--model", model, "--warmup", str(warmup)]
            command += ["--iterations", str(iterations), "--out", str(path), *overrides]
        else:
            stopwatch = f"{{_target_:throughput.Stopwatch,warmup:{warmup},iterations:{iterations},path:'{path}'}}"
            command = ["-m", "gan_lightning", *PROJECT[model][name], *overrides, f"hydra.run.dir={folder}/run"]
            command += ["trainer.max_epochs=-1", f"trainer.max_steps={warmup + iterations + COUNTED * ON_GPU}"]
            command += ["++trainer.limit_val_batches=0"]  # no evaluation
            if iterations < EPOCH:
                command += [f"++trainer.limit_train_batches={iterations}"]
            command += [f"+callbacks.stopwatch={stopwatch}"]
        measured, peak_memory_gb = time_process(command, path, output)
        images_per_second = iterations * BATCH_SIZE / measured.pop("seconds")
        return {"images_per_second": images_per_second, **measured, "peak_memory_gb": peak_memory_gb}


def time_process(command: list[str], path: Path, output: Path) -> tuple[Any, float]:
    """What a process of Python writes into `path`, and its peak memory in GB."""
    paths = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with output.open("w") as file:
        process = subprocess.Popen([sys.executable, *command], stdout=file, stderr=file, env=environment)
        _, status, usage = os.wait4(process.pid, 0)  # subprocess keeps no memory of one child alone
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not path.exists():
        said = output.read_text()[-3000:]
        raise SystemExit(f"{' '.join(command)} failed with exit code {process.returncode}:\n{said}")
    kilo = 1 if platform.system() == "Darwin" else 1024  # ru_maxrss is in bytes there, elsewhere in KiB
    return json.loads(path.read_text()), usage.ru_maxrss * kilo / 1e9


def measure_scores(images_per_second: float, overrides: list[str]) -> dict[str, Any]:
    """What an evaluation of the default costs beside the training up to the next one, at so many images per second."""
    config = compose_train(overrides)
    epochs = config.trainer.check_val_every_n_epoch
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = Path(folder) / "seconds"
        command = ["-m", "gan_lightning", *overrides, f"hydra.run.dir={folder}/run", "trainer.max_epochs=2"]
        command += ["trainer.check_val_every_n_epoch=1", "++trainer.limit_train_batches=5"]
        command += [f"+callbacks.clock={{_target_:throughput.EvaluationTime,path:'{path}'}}"]
        seconds, peak_memory_gb = time_process(command, path, Path(folder) / "output")
    share = seconds / (epochs * EPOCH * BATCH_SIZE / images_per_second)
    return {
        "num_samples": config.metrics.num_samples,
        "seconds": seconds,
        "epochs_between": epochs,
        "share": share,
        "peak_memory_gb": peak_memory_gb,
        "target": {
            "target": "an evaluation / epochs between two",
            "wanted": f"{MOST_FOR_SCORES} or less",
            "is": share,
            "met": share <= MOST_FOR_SCORES,
        },
    }


def race(model: str, rounds: int, warmup: int, iterations: int, overrides: list[str]) -> dict[str, Any]:
    """All contestants, `rounds` times in turn."""
    from rich.console import Console

    console = Console(stderr=True)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in [*OPPONENTS, *PROJECT[model]]}
    for number in range(rounds):
        for name in results:
            with console.status(f"{model}: round {number + 1} of {rounds}, {name}"):
                results[name].append(measure(name, model, warmup, iterations, overrides))
    outcome = {"model": model, "iterations": iterations, "rounds": rounds, **summarize(model, results)}
    if "default" in results and compose_train(overrides).metrics:
        with console.status(f"{model}: an evaluation"):
            outcome["scores"] = measure_scores(outcome["images_per_second"]["default"], overrides)
        outcome["targets"].append(outcome["scores"].pop("target"))
    return outcome


def summarize(model: str, results: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians, and which targets are met."""
    speeds = {name: [result["images_per_second"] for result in each] for name, each in results.items()}
    ratios = {
        (name, other): statistics.median(a / b for a, b in zip(speeds[name], speeds[other], strict=True))
        for name in speeds
        for other in OPPONENTS
    }
    memory = {name: max(result["peak_memory_gb"] for result in each) for name, each in results.items()}
    targets = []
    for (name, other), least in TARGETS[model].items():
        ratio, wanted = ratios[name, other], f"{least} or more"
        targets.append({"target": f"{name} / {other}", "wanted": wanted, "is": ratio, "met": ratio >= least})
    for name in () if ON_GPU else PROJECT[model]:  # CUDA takes memory of its own
        peak, wanted = memory[name], f"under {MAX_MEMORY_GB}"
        targets.append({"target": f"{name}, peak GB", "wanted": wanted, "is": peak, "met": peak < MAX_MEMORY_GB})
    return {
        "images_per_second": {name: statistics.median(each) for name, each in speeds.items()},
        "ratios": {f"{name} / {other}": ratio for (name, other), ratio in ratios.items()},
        "peak_memory_gb": memory,
        "steps": {
            name: {key: statistics.median(result[key] for result in each) for key in ("step_ms", "launches")}
            for name, each in results.items()
            if ON_GPU
        },
        "targets": targets,
        "all_images_per_second": speeds,
    }


def show(outcome: dict[str, Any], judge: bool) -> None:
    """Print one model's table, and with `judge` which targets are met."""
    from rich.console import Console
    from rich.table import Table

    columns = ["", "images/s", "range", *(f"/ {other}" for other in OPPONENTS), "peak GB"]
    columns += ["step ms", "launches"] if ON_GPU else []
    title = f"{outcome['model']}: medians of {outcome['rounds']} rounds of {outcome['iterations']} iterations"
    table = Table(*columns, title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, speed in outcome["images_per_second"].items():
        each = outcome["all_images_per_second"][name]
        spread = f"{min(each):,.0f}-{max(each):,.0f}"
        ratios = [f"{outcome['ratios'][f'{name} / {other}']:.2f}" for other in OPPONENTS]
        step = outcome["steps"].get(name, {})
        steps = [f"{step['step_ms']:.3f}", f"{step['launches']:.0f}"] if step else []
        table.add_row(name, f"{speed:,.0f}", spread, *ratios, f"{outcome['peak_memory_gb'][name]:.2f}", *steps)
    console = Console()
    console.print(table)
    if scores := outcome.get("scores"):
        console.print(
            f"  scores: {scores['num_samples']:,} samples in {scores['seconds']:.1f} s, {scores['share']:.1%} of the "
            f"{scores['epochs_between']} epochs between two evaluations",
            highlight=False,
        )
    for target in outcome["targets"] if judge else []:
        verdict = "met   " if target["met"] else "MISSED"
        console.print(f"  {verdict} {target['target']}: {target['is']:.2f}, wanted {target['wanted']}", highlight=False)


def machine() -> dict[str, Any]:
    """What the numbers depend on. A load above a few tenths at the start means that they are noise."""
    return {
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_at_start": os.getloadavg()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": platform.machine(),
        "gpu": torch.cuda.get_device_name() if ON_GPU else None,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(PROJECT), help="default: both")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--iterations", type=int, help=f"timed ones; default: {ITERATIONS}")
    parser.add_argument("--warmup", type=int, default=50, help="iterations before the clock starts; default: 50")
    parser.add_argument("--out", type=Path, default=HERE.parent / "outputs" / "bench.json")
    parser.add_argument("--quick", action="store_true", help="does everything run? One round of a few iterations")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a target is missed")
    parser.add_argument("--worker", choices=OPPONENTS, help=argparse.SUPPRESS)
    args, overrides = parser.parse_known_args(arguments)
    if unknown := [override for override in overrides if "=" not in override or override.startswith("-")]:
        parser.error(f"unknown argument {unknown[0]}")
    if args.quick:
        args.rounds, args.iterations, args.warmup = 1, 8, 2

    if args.worker:
        run_worker(args.worker, args.model, overrides, args.warmup, args.iterations, args.out)
        return 0

    load_images(overrides)  # fetch them before the clock runs
    started = machine()
    models = [args.model] if args.model else list(PROJECT)
    outcomes = []
    for model in models:
        iterations = args.iterations or ITERATIONS[model]
        outcomes.append(race(model, args.rounds, args.warmup, iterations, overrides))
        show(outcomes[-1], judge=not args.quick)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"machine": started, "results": outcomes}, indent=2) + "\n")
    print(f"written to {args.out}; load at the start {started['load_at_start']:.1f}")
    return int(args.check and not all(target["met"] for outcome in outcomes for target in outcome["targets"]))


def load_images(overrides: list[str]) -> tuple[Path, Tensor]:
    """Folder and training images, (N, 1, 28, 28) uint8, of the data set that the project trains on."""
    from hydra.utils import instantiate

    data = instantiate(compose_train(overrides).data)
    data.prepare_data()
    return data.root, data.images()


def compose_train(overrides: list[str]) -> Any:
    from hydra import compose, initialize_config_dir

    from gan_lightning.files import conf_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=overrides)


if __name__ == "__main__":
    sys.exit(main())
