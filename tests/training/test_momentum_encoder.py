"""The momentum encoder: it follows the network by the formula, and the bank remembers what it sees."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from spml_dist import comm
from spml_dist.bank.rows import by_identity, digest
from spml_dist.config import Config, load
from spml_dist.errors import RunError
from spml_dist.hashing import image_hash
from spml_dist.method.step import StepLosses
from spml_dist.model.segmenter import Segmenter, build
from spml_dist.records import IGNORED, BankRows, Batch
from spml_dist.run_folder import RunFolder
from spml_dist.tensor_records import take
from spml_dist.tracking import metrics_log
from spml_dist.training import checkpoint, deepspeed_engine, loop, momentum_encoder, run_bank
from spml_dist.training.build import TrainingRun
from spml_dist.training.checkpoint_writer import CheckpointWriter
from spml_dist.training.deepspeed_engine import DeepSpeedEngine
from spml_dist.training.momentum_encoder import MomentumEncoder
from spml_dist.training.torch_engine import TorchEngine
from tests.conftest import SMALL
from tests.spawn import spawn
from tests.training.test_shipped_configs import CLASSES, CROP, IMAGES, SHRUNK, batch

CPU = torch.device("cpu")
MOMENTUM = 0.75


def configured(momentum: float | None = MOMENTUM, *changes: str) -> Config:
    message = "null" if momentum is None else momentum
    words = [
        f"bank.encoder_momentum={message}",
        "tracking.previews=0",
        "schedule.warmup=0",
        "optimizer.lr=0.2",
    ]
    return load(SMALL, [*SHRUNK, "segments.grid=[3,3]", *words, *changes])


def started(config: Config, last: Path | None = None) -> TrainingRun:
    """A run of one process that is fed by hand."""
    saved = checkpoint.read(last) if last else None
    model = network(config)
    encoder = momentum_encoder.build(config, model, torch.float32, saved and saved.engine)
    engine = TorchEngine(model, config, saved and saved.engine)
    bank = run_bank.build(config, CLASSES, CPU)
    if last:
        bank.restore(last / checkpoint.BANK)
    manifest = SimpleNamespace(background=None)
    rest = (None, None, CheckpointWriter(Path(), config))
    return TrainingRun(config, RunFolder(Path()), manifest, CPU, engine, encoder, bank, *rest)


def network(config: Config) -> Segmenter:
    return build(config.model, CLASSES, config.seed).train()


def advance(run: TrainingRun, step: int, batches: list[Batch] | None = None) -> list[StepLosses]:
    return loop.make_step(run, step, batches or [batch(step)], metrics_log.Stopwatch(0), True)


def remembered(run: TrainingRun) -> BankRows:
    run.bank.settle()
    return by_identity(take(run.bank.store.rows, run.bank.store.live()))


def averaged(before: dict[str, Tensor], after: dict[str, Tensor], momentum: float) -> dict[str, np.ndarray]:
    """m·before + (1 - m)·after, in float64."""
    one, other = ({k: v.double().numpy() for k, v in weights.items()} for weights in (before, after))
    return {name: momentum * one[name] + (1 - momentum) * other[name] for name in before}


class TestUpdate:
    @pytest.mark.parametrize("momentum", [0.25, 0.999])
    def test_a_share_of_the_old_weights_stays_at_each_step(self, momentum: float):
        model = network(configured())
        encoder = MomentumEncoder(model, momentum)
        for seed in range(2):
            before = {name: value.clone() for name, value in encoder.state().items()}
            torch.manual_seed(seed)
            with torch.no_grad():
                for weight in model.parameters():
                    weight += torch.randn_like(weight)
            encoder.update()
            expected = averaged(before, {name: model.state_dict()[name] for name in before}, momentum)
            for name, value in encoder.state().items():
                np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)

    def test_backbone_and_head_are_followed_and_nothing_learns_in_the_copy(self):
        model = network(configured())
        encoder = MomentumEncoder(model, MOMENTUM)
        names = {name for name, _ in model.named_parameters() if not name.startswith("classifier.")}
        assert set(encoder.state()) == names
        assert not encoder.embed(batch(0).image).requires_grad

    def test_the_network_is_left_as_it_is(self):
        """Its running statistics and gradients too."""
        model = network(configured())
        before = {name: value.clone() for name, value in model.state_dict().items()}
        encoder = MomentumEncoder(model, MOMENTUM)
        encoder.update()
        encoder.embed(batch(0).image)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert all(weight.grad is None for weight in model.parameters())

    def test_steps_too_small_for_16_bits_add_up(self):
        model = network(configured())
        encoder = MomentumEncoder(model, 0.9999)
        model.bfloat16()
        name, weight = next(iter(model.named_parameters()))
        before = encoder.state()[name].clone()
        with torch.no_grad():
            weight += 1
        for _ in range(20):
            encoder.update()
        moved = encoder.state()[name] - before
        assert moved.dtype == torch.float32
        torch.testing.assert_close(moved, torch.full_like(moved, 1 - 0.9999**20), rtol=0.05, atol=1e-5)


class TestEmbedding:
    def test_a_fresh_copy_sees_what_the_network_sees_in_training(self):
        model = network(configured())
        encoder = MomentumEncoder(model, MOMENTUM)
        raw, _ = model(batch(0).image.to(memory_format=torch.channels_last), [0] * IMAGES)
        torch.testing.assert_close(encoder.embed(batch(0).image), raw)

    def test_it_computes_in_the_engine_s_precision(self):
        model = network(configured())
        exact, rough = (MomentumEncoder(model, MOMENTUM, dtype) for dtype in (torch.float32, torch.bfloat16))
        raw, rounded = exact.embed(batch(0).image), rough.embed(batch(0).image)
        assert (raw.dtype, rounded.dtype) == (torch.float32, torch.bfloat16)
        assert torch.cosine_similarity(raw, rounded.float()).min() > 0.99
        doubled = MomentumEncoder(network(configured()).double(), MOMENTUM, torch.float64)
        torch.testing.assert_close(doubled.embed(batch(0).image).float(), raw, rtol=1e-4, atol=1e-4)

    def test_no_image_gives_no_embedding(self):
        encoder = MomentumEncoder(network(configured()), MOMENTUM)
        assert encoder.embed(batch(0).image[:0]).shape == (0, 8, CROP // 4, CROP // 4)


class TestBank:
    def test_it_remembers_what_the_slow_weights_see_of_the_step_s_segments(self):
        """One pixel after the other; two micro-batches, after which the encoder moves once."""
        config = configured(MOMENTUM, f"stream.batch={2 * IMAGES}", "engine.accumulation=2")
        run, batches = started(config), [batch(0), batch(1)]
        before = {name: value.clone() for name, value in run.encoder.state().items()}
        parts = advance(run, 0, batches)

        after = {name: run.engine.state()["weights"][name] for name in before}
        assert any((after[name] != before[name]).any() for name in before)
        reference, weights = network(config), averaged(before, after, MOMENTUM)
        weights = {name: torch.from_numpy(value).float() for name, value in weights.items()}
        reference.load_state_dict(weights, strict=False)
        rows, seen = remembered(run), 0
        for now, part in zip(batches, parts, strict=True):
            vectors = prototypes_one_by_one(reference.embed(now.image), now, part)
            for image, hashed in enumerate(image_hash(now.keys).tolist()):
                own = vectors[part.segments.segments.image.numpy() == image]
                seen += len(own)
                np.testing.assert_allclose(rows.vector[rows.image == hashed], own, rtol=1e-3, atol=1e-4)
        assert seen == len(rows) > 0

    def test_ignored_pixels_take_no_part(self):
        run, whole = started(configured()), batch(0)
        semantic = whole.semantic.clone()
        semantic[1] = IGNORED
        semantic[2, : CROP // 2] = IGNORED
        [part] = advance(run, 0, [replace(whole, semantic=semantic)])
        assert len(remembered(run)) == len(part.segments.segments) and 1 not in part.segments.segments.image

    def test_an_encoder_that_keeps_nothing_of_a_network_that_stands_still_is_the_network(self):
        still = ("optimizer.lr=1e-12",)
        own, slow_ones = (started(configured(momentum, *still)) for momentum in (None, 1e-6))
        for step in range(2):
            advance(own, step)
            advance(slow_ones, step)
        one, other = remembered(own), remembered(slow_ones)
        torch.testing.assert_close(other.vector, one.vector, rtol=1e-3, atol=1e-4)
        for field in fields(BankRows):
            if field.name != "vector":
                assert torch.equal(getattr(one, field.name), getattr(other, field.name)), field.name

    def test_the_momentum_changes_vectors_and_through_them_the_next_loss(self):
        vectors, losses = [], []
        for momentum in (None, 0.1, 0.9):
            run = started(configured(momentum))
            first = advance(run, 0)[0].total.item()
            vectors.append(remembered(run).vector)
            losses.append((first, advance(run, 1)[0].total.item()))
        for i, j in ((0, 1), (0, 2), (1, 2)):
            assert (vectors[i] - vectors[j]).abs().max() > 1e-3
        assert len({first for first, _ in losses}) == 1
        assert len({second for _, second in losses}) == 3

    def test_without_relations_there_is_nothing_to_remember(self):
        relations = [f"relations.{name}.weight=0" for name in ("annotation", "cooccurrence")]
        run = started(configured(MOMENTUM, "relations.image_similarity.weight=0", *relations))
        advance(run, 0)
        assert len(remembered(run)) == 0


class TestWithout:
    def test_no_copy_is_made(self, monkeypatch):
        monkeypatch.setattr(momentum_encoder, "copy", None)
        assert started(configured(None)).encoder is None

    def test_the_bank_remembers_the_network_s_own_vectors(self):
        run = started(configured(None))
        [part] = advance(run, 0)
        images = image_hash(batch(0).keys)[part.segments.segments.image]
        order = torch.argsort(images, stable=True)
        assert torch.equal(remembered(run).vector, part.segments.segments.prototype.detach()[order])


class TestCheckpoint:
    @staticmethod
    def saved(run: TrainingRun, step: int, folder: Path) -> Path:
        state = {"step": step, "fingerprint": "f"}
        writer = CheckpointWriter(folder, run.config)
        path = writer.begin(run.engine, run.bank, state, run.encoder)
        writer.finish()
        return path

    def test_a_run_interrupted_twice_is_the_straight_one_to_the_bit(self, tmp_path: Path):
        config = configured()
        straight = started(config)
        losses = [advance(straight, step)[0].total.item() for step in range(4)]
        run, again = started(config), []
        for step in range(4):
            again.append(advance(run, step)[0].total.item())
            if step in (0, 2):
                run = started(config, self.saved(run, step + 1, tmp_path))
        assert again == losses
        for name, value in straight.encoder.state().items():
            assert torch.equal(run.encoder.state()[name], value), name
        assert digest(remembered(run)).tolist() == digest(remembered(straight)).tolist()

    def test_the_slow_weights_are_a_file_of_their_own_where_there_are_any(self, tmp_path: Path):
        path = self.saved(started(configured()), 1, tmp_path) / "engine"
        assert {file.name for file in path.iterdir()} == {
            f"{part}.safetensors" for part in ("weights", "momentum", "slow")
        }
        path = self.saved(started(configured(None)), 2, tmp_path) / "engine"
        assert {file.name for file in path.iterdir()} == {"weights.safetensors", "momentum.safetensors"}

    @pytest.mark.parametrize(
        ("before", "after", "message"),
        [(None, 0.99, r"has none \(got 0.99\)"), (0.99, None, r"has one \(got null\)")],
    )
    def test_a_run_cannot_get_or_lose_its_encoder_midway(self, tmp_path: Path, before, after, message: str):
        path = self.saved(started(configured(before)), 1, tmp_path)
        with pytest.raises(
            RunError, match=rf"^bank\.encoder_momentum .*checkpoint, which {message}; give it"
        ):
            started(configured(after), path)

    def test_a_damaged_file_is_named(self, tmp_path: Path):
        path = self.saved(started(configured()), 1, tmp_path)
        file = path / "engine" / "slow.safetensors"
        file.write_bytes(file.read_bytes()[:1000])
        with pytest.raises(RunError, match=r"step_000001 cannot be read"):
            checkpoint.read(path)


STAGES = {0: "float32", 1: "bfloat16", 2: "float32"}


@pytest.mark.timeout(600)
def test_at_every_stage_each_rank_follows_the_whole_network_and_embeds_as_one_process_does():
    """Two ranks, all images on one of them; batch norms see all images of all ranks."""
    ranks = spawn(follow, 2, seconds=500)
    one = MomentumEncoder(network(configured()), MOMENTUM).embed(batch(0).image)
    for stage, precision in STAGES.items():
        (mine, fresh), (theirs, none) = (rank[stage] for rank in ranks)
        assert len(none) == 0
        torch.testing.assert_close(fresh, one, rtol=1e-4, atol=1e-4)
        assert mine["moved"] and theirs["moved"]
        assert mine["error"] < (1e-6 if precision == "float32" else 2e-3)
        for name, value in mine["slow"].items():
            assert torch.equal(theirs["slow"][name], value), (stage, name)


def follow(rank: int) -> dict:
    """A step of every stage; what the slow weights became, and how far from the formula."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    message = {}
    for stage, precision in STAGES.items():
        config = configured(MOMENTUM, f"engine.zero_stage={stage}", f"engine.precision={precision}")
        model = network(config)
        encoder = MomentumEncoder(model, MOMENTUM)
        deepspeed_engine.prepare(CPU, lambda text: None)
        engine = DeepSpeedEngine(model, config)
        images = batch(0).image[: IMAGES * (comm.rank() == 0)]
        fresh = encoder.embed(images)
        before = {name: value.clone() for name, value in encoder.state().items()}
        engine.set_rate(0.1)
        raw, logits = engine(images.to(loop.PRECISION[precision]), [0] * len(images))
        engine.backward(raw.float().square().sum() + logits.float().square().sum())
        engine.step()
        encoder.update()
        weights = {name: value.clone() for name, value in engine.state()["weights"].items()}
        expected = averaged(before, {name: weights[name] for name in before}, MOMENTUM)
        error = max(np.abs(value - expected[name]).max() for name, value in encoder.state().items())
        moved = any((weights[name] != before[name]).any() for name in before)
        slow_ones = {name: value.clone() for name, value in encoder.state().items()}
        message[stage] = ({"slow": slow_ones, "error": float(error), "moved": moved}, fresh)
    return message


def prototypes_one_by_one(raw: Tensor, now: Batch, part: StepLosses) -> np.ndarray:
    """[P, C] float64: L2norm(Σ u / |u|) over the valid pixels, which come by image, row and column."""
    vectors, side = raw.detach().double().numpy(), CROP // 4
    sums, pixel = np.zeros((len(part.segments.segments), vectors.shape[1])), 0
    for image in range(len(now)):
        for y in range(side):
            for x in range(side):
                if now.semantic[image, 4 * y, 4 * x] != IGNORED:
                    u = vectors[image, :, y, x]
                    sums[part.segments.pixels.segment[pixel]] += u / np.linalg.norm(u)
                    pixel += 1
    assert pixel == len(part.segments.pixels.segment)
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)
