"""On a GPU: what may differ there. `REHEARSE=1 pytest -m gpu` runs on a CPU what it can."""

import json
import os

import pytest
import torch
from hydra.utils import instantiate
from lightning import Callback
from torch.testing import assert_close

from gan_lightning.callbacks.cuda_graph import WARMUP
from gan_lightning.data.module import BatchLoader
from gan_lightning.images import to_uint8
from gan_lightning.metrics.judge import extract, load_judge
from gan_lightning.runs.checkpoint import load_gan
from gan_lightning.train import build_gan, build_trainer
from gan_lightning.train import main as train

REHEARSE = bool(os.environ.get("REHEARSE"))
ACCELERATOR = "cpu" if REHEARSE else "gpu"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (REHEARSE or torch.cuda.is_available()), reason="torch finds no GPU on this machine"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # Lightning's advice, and ours on combinations tried here
]
needs_cuda = pytest.mark.skipif(REHEARSE, reason="a CPU has no CUDA graphs and does not run beside the host")

SMALL = {
    "mlp": ["model.generator.hidden=[32]", "model.discriminator.hidden=[32]"],
    "dcgan": ["model.generator.base_channels=8", "model.discriminator.base_channels=8"],
    "resnet": ["model.generator.base_channels=8", "model.discriminator.base_channels=8"],
    "r3gan": [
        f"model.{network}.{setting}"
        for network in ("generator", "discriminator")
        for setting in ("base_channels=4", "max_channels=8", "num_blocks=1", "group_width=4")
    ],
}
CONDITIONINGS = ("none", "concat", "embedding", "projection", "auxiliary")
LOSSES = ("hinge", "least_squares", "minimax", "non_saturating", "relativistic", "wasserstein")
PENALTIES = ("none", "gradient_penalty", "r1", "r2", "r1_r2")
BF16 = "trainer.precision=bf16-mixed"
FALLING = ["schedule=cosine", "+schedule@penalty.schedule=linear", "penalty.schedule.final=0.1"]

EVERYTHING = {
    **{f"{m}-{c}": [f"model={m}", f"conditioning={c}", *SMALL[m]] for m in SMALL for c in CONDITIONINGS},
    **{f"{loss}-{penalty}": [f"loss={loss}", f"penalty={penalty}"] for loss in LOSSES for penalty in PENALTIES},
    "clipping": ["loss=wasserstein", "penalty=none", "constraint=weight_clipping", "optimizer=rmsprop"],
    "augmented": ["model=dcgan", "augment=diffaugment", *SMALL["dcgan"]],
    "critic": ["n_critic=2", "penalty=gradient_penalty"],
    "reused": ["reuse_fake=true"],
    "schedules": FALLING,
    "dropout": ["model.discriminator.dropout=0.3"],
    "clipped gradients": ["max_gradient_norm=0.1"],
    "not averaged": ["ema=null"],
    "minibatch std": ["model.discriminator.minibatch_std=true"],
    "bf16-r1": [BF16, "penalty=r1"],
    "bf16-gp": [BF16, "penalty=gradient_penalty", "model=dcgan", *SMALL["dcgan"]],
    "bf16-spectral norm": [BF16, "model=dcgan", *SMALL["dcgan"], "model.discriminator.spectral_norm=true"],
    "bf16-batch norm": [BF16, "model=dcgan", *SMALL["dcgan"], "model.discriminator.batch_norm=true", "penalty=none"],
}


@pytest.fixture
def fit(compose):
    """`fit(overrides, iterations=8, watcher, ...)` trains on the GPU, and returns the GAN."""

    def run(overrides, *watchers, iterations=8, resume=None, save=None):
        length = [f"trainer.accelerator={ACCELERATOR}", "trainer.max_epochs=-1", f"trainer.max_steps={iterations}"]
        config = compose("data.batch_size=32", "logger=none", *length, *overrides)
        config.callbacks = {}
        trainer = build_trainer(config, *watchers)
        gan = build_gan(config)
        trainer.fit(gan, instantiate(config.data), ckpt_path=resume)
        assert trainer.global_step == iterations
        if save:
            trainer.save_checkpoint(save)
        return gan

    return run


def assert_same(one, other):
    """Bit by bit, weights, averages and BatchNorm's statistics."""
    for (name, value), (_, wanted) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        assert value.isfinite().all(), name
        assert torch.equal(value, wanted), (name, (value - wanted).abs().max())


class Each(Callback):
    """Calls a function before, and another after every iteration from the one on that a run settles at."""

    def __init__(self, before, after):
        self.before, self.after = before, after

    def on_train_batch_start(self, trainer, gan, *_):
        if gan.global_step > 2 * WARMUP + 2:
            self.before()

    def on_train_batch_end(self, *_):
        self.after()


# --- Every part --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overrides", EVERYTHING.values(), ids=EVERYTHING)
def test_everything_trains_both_networks(fit, compose, overrides):
    gan = fit(overrides, iterations=2)
    start = build_gan(compose("data.batch_size=32", *overrides))
    for network in "generator", "discriminator":
        changed = [
            not torch.equal(weight.cpu(), before)
            for weight, before in zip(
                getattr(gan, network).parameters(), getattr(start, network).parameters(), strict=True
            )
        ]
        assert sum(changed) >= 0.5 * len(changed), network  # classes that no image has keep their rows
        assert all(weight.isfinite().all() for weight in getattr(gan, network).parameters())


@needs_cuda
@pytest.mark.parametrize("overrides", EVERYTHING.values(), ids=EVERYTHING)
def test_a_graph_computes_what_the_usual_steps_do(fit, overrides):
    exact = ["+trainer.deterministic=true", "trainer.log_every_n_steps=1"]
    usual, graph = (fit([*overrides, *exact, f"cuda_graph={on}"], iterations=12) for on in ("false", "true"))
    if overrides == FALLING or "optimizer=rmsprop" in overrides:
        assert_close(graph.state_dict(), usual.state_dict(), rtol=1e-4, atol=1e-6)
    else:
        assert_same(graph, usual)


@needs_cuda
def test_a_graph_leaves_losses_and_gradients_where_the_curves_read_them(fit, compose):
    class Curves(Callback):
        def __init__(self):
            self.points = []

        def on_train_batch_end(self, trainer, gan, outputs, *_):
            norms = [
                torch.nn.utils.get_total_norm([weight.grad for weight in network.parameters()])
                for network in (gan.discriminator, gan.generator)
                if next(network.parameters()).grad is not None
            ]
            self.points.append([*(outputs[name].mean().item() for name in sorted(outputs)), *map(float, norms)])

    usual, graph = Curves(), Curves()
    for curves, on in (usual, "false"), (graph, "true"):
        fit(["n_critic=2", f"cuda_graph={on}"], curves, iterations=16)
    assert graph.points == usual.points


@needs_cuda
@pytest.mark.parametrize("on", ["false", "true"])
def test_no_step_makes_the_host_wait(fit, on):
    watcher = Each(lambda: torch.cuda.set_sync_debug_mode("error"), lambda: torch.cuda.set_sync_debug_mode("default"))
    for overrides in (
        ["model=dcgan", *SMALL["dcgan"], "conditioning=projection"],
        ["n_critic=2", "max_gradient_norm=1"],
    ):
        fit([*overrides, "trainer.log_every_n_steps=1000", f"cuda_graph={on}"], watcher, iterations=14)


@needs_cuda
@pytest.mark.parametrize("on", ["false", "true"])
def test_memory_does_not_grow(fit, on):
    taken = []
    watcher = Each(lambda: None, lambda: taken.append(torch.cuda.memory_allocated()))
    fit(["model=dcgan", *SMALL["dcgan"], f"cuda_graph={on}"], watcher, iterations=60)
    assert max(taken[40:]) <= max(taken[12:20])


@needs_cuda
def test_a_step_that_a_graph_cannot_hold_is_one_line(fit):
    class Waits(Callback):
        def on_train_start(self, trainer, gan):
            gan.constraint = lambda network: next(network.parameters()).sum().item()

    with pytest.raises(ValueError, match=r"^cuda_graph=true: this step cannot be recorded .*cuda_graph=false$"):
        fit(["cuda_graph=true"], Waits())


# --- A run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", ["false", pytest.param("true", marks=needs_cuda)])
@pytest.mark.parametrize("model", ["mlp", "dcgan"])
def test_a_run_resumes_bit_by_bit(fit, tmp_path, model, on):
    overrides = [f"model={model}", *SMALL[model], "+trainer.deterministic=true"]
    whole = fit(overrides, iterations=16)
    fit(overrides, iterations=7, save=tmp_path / "half.ckpt")
    assert_same(fit([*overrides, f"cuda_graph={on}"], iterations=16, resume=tmp_path / "half.ckpt"), whole)


@needs_cuda
@pytest.mark.parametrize(
    "optimizer", ["adam", "rmsprop"]
)  # whose count of steps lies on the CPU, in a graph on the GPU
def test_a_run_with_a_graph_is_resumed_without(fit, tmp_path, optimizer):
    overrides = [f"optimizer={optimizer}"]
    whole = fit(overrides, iterations=16)
    fit([*overrides, "cuda_graph=true"], iterations=8, save=tmp_path / "half.ckpt")
    resumed = fit(overrides, iterations=16, resume=tmp_path / "half.ckpt")
    if optimizer == "adam":
        assert_same(resumed, whole)
    else:
        assert_close(resumed.state_dict(), whole.state_dict(), rtol=1e-4, atol=1e-6)


def test_a_run_from_the_command_scores_and_saves(compose, tmp_path):
    graph = "false" if REHEARSE else "true"
    scored = ["metrics=judge", "metrics.num_samples=600", "metrics.cache=null", "trainer.check_val_every_n_epoch=1"]
    train(compose(f"trainer.accelerator={ACCELERATOR}", "data.batch_size=32", f"cuda_graph={graph}", *scored))
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics/fid"] > 0
    gan = load_gan(tmp_path / "checkpoints" / "last.ckpt")
    assert gan.device.type == "cpu"
    images = gan.sample(16, seed=3)
    assert images.shape == (16, 1, 28, 28)
    if not REHEARSE:
        assert_close(gan.to("cuda").sample(16, seed=3).cpu(), images, rtol=1e-4, atol=1e-4)  # the same z


def test_the_data_set_lies_on_the_gpu_and_its_order_is_the_cpus(fit, compose):
    class Seen(Callback):
        def __init__(self):
            self.batches = []

        def on_train_batch_start(self, trainer, gan, batch, batch_idx):
            assert trainer.train_dataloader.images.device.type == gan.device.type
            self.batches.append([part.cpu() for part in batch])

    seen = Seen()
    fit(["data.batch_size=100"], seen, iterations=8)
    data = instantiate(compose().data)
    loader = BatchLoader(data.images(), data.labels(), 100)
    wanted = [batch for _ in range(2) for batch in loader][:8]
    for (images, labels), (wanted_images, wanted_labels) in zip(seen.batches, wanted, strict=True):
        assert torch.equal(to_uint8(images), wanted_images)
        assert torch.equal(labels, wanted_labels)


def test_stacks_are_formed_on_the_gpu(compose, fit):
    fit(["data=stacked_mnist", "model=dcgan", *SMALL["dcgan"]], iterations=3)


def test_scores_are_computed_in_full_float32():
    torch.backends.cudnn.allow_tf32 = True
    images = torch.randint(256, (64, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    judge = load_judge("mnist")
    on_cpu = extract(judge, images)
    on_gpu = extract(judge.to("cpu" if REHEARSE else "cuda"), images)
    for wanted, value in zip(on_cpu, on_gpu, strict=True):
        error = (value.cpu() - wanted).norm() / wanted.norm()
        assert error < 1e-5, error  # TF32 has ten bits: 3e-4
