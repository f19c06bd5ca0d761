"""Ranks as groups, in two real processes; and the same data in every other way that an adapter can be given it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook, fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from rl_scaling.noise import (
    GradientNoise,
    MicroBatchNoise,
    NoiseScaleEstimate,
    PerExampleNoise,
    RankNoise,
)
from tests.noise.torch.reference import Model, losses, naive_meter, regression, same

RANKS, ROWS, STEPS = 2, 12, 5
GROUPS = [range(6), range(6, 12)]


def model_of(width: int = 8) -> Model:
    torch.manual_seed(0)
    return Model(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2)).double()


# Each case runs in every rank and gives its estimate.
def plain(rank: int) -> Any:
    return run(rank, every=1)


def static(rank: int) -> Any:
    return run(rank, {"static_graph": True, "gradient_as_bucket_view": True}, every=1)


def compressed(rank: int) -> Any:
    return {hook.__name__: run(rank, every=1, hook=hook) for hook in (fp16_compress_hook, bf16_compress_hook)}


def accumulated(rank: int) -> Any:
    """Two micro-batches per rank, the first without exchange; several buckets, every other step."""
    model = DistributedDataParallel(model_of(200), bucket_cap_mb=0.05)
    noise = RankNoise(model, every=2, parts="layers")
    for inputs, targets in regression(1, STEPS, ROWS, 5):
        model.zero_grad()
        first, second = GROUPS[rank][:2], GROUPS[rank][2:]
        with model.no_sync():
            (losses(model, inputs[first], targets[first]).sum() / 6).backward()
        (losses(model, inputs[second], targets[second]).sum() / 6).backward()
        noise.step(examples=6)
    return {name: as_numbers(estimate) for name, estimate in noise.estimates().items()}


def scaled(rank: int) -> Any:
    """Mixed precision's scale and a step that overflows, unequal ranks, and a state that is taken up."""
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    model = DistributedDataParallel(model_of())
    noise = RankNoise(model, every=1, scaler=scaler)
    for step, (inputs, targets) in enumerate(regression(1, STEPS, ROWS, 5)):
        model.zero_grad()
        rows = GROUPS[rank]
        loss = scaler.scale(losses(model, inputs[rows], targets[rows]).mean())
        (loss * (float("inf") if step == 1 else 1)).backward()
        noise.step(examples=6)
    again = RankNoise(DistributedDataParallel(model_of()), every=1)
    again.load_state_dict(noise.state_dict())
    return as_numbers(again.estimate())


def refused(rank: int) -> Any:
    """Messages of what is refused: no exchange, two exchanges, one rank, sharded models."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    messages = []

    def expect(call: Any) -> None:
        with pytest.raises(ValueError, match=r".") as caught:
            call()
        messages.append(str(caught.value))

    model = DistributedDataParallel(nn.Linear(3, 1))
    noise = RankNoise(model, every=1)
    with model.no_sync():
        model(torch.ones(2, 3)).mean().backward()
    expect(lambda: noise.step(2))
    for _ in range(2):
        model(torch.ones(2, 3)).mean().backward()
    expect(lambda: noise.step(2))
    expect(lambda: noise.step(0))
    alone = [dist.new_group([r]) for r in range(RANKS)][rank]
    expect(lambda: RankNoise(DistributedDataParallel(nn.Linear(3, 1), process_group=alone)))
    expect(lambda: MicroBatchNoise(model))
    sharded: Any = fully_shard(nn.Linear(4, 4), mesh=init_device_mesh("cpu", (RANKS,)))
    expect(lambda: RankNoise(sharded))
    expect(lambda: GradientNoise(sharded))
    return messages


CASES = (plain, static, compressed, accumulated, scaled, refused)


def run(rank: int, wrapped: dict[str, Any] | None = None, **options: Any) -> Any:
    model = DistributedDataParallel(model_of(), **(wrapped or {}))
    noise = RankNoise(model, **options)
    for inputs, targets in regression(1, STEPS, ROWS, 5):
        model.zero_grad()
        rows = GROUPS[rank]
        losses(model, inputs[rows], targets[rows]).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        noise.step(examples=len(rows))
    return as_numbers(noise.estimate())


def as_numbers(estimate: NoiseScaleEstimate) -> dict[str, float]:
    names = ("grad_sq_norm", "trace_cov", "b_simple", "low", "high", "steps", "skipped", "resolved")
    return {name: float(getattr(estimate, name)) for name in names}


def rank_main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    try:
        answers = {case.__name__: case(rank) for case in CASES}
        dist.barrier()  # gloo's threads let go of tensors that Python knows before Python ends
    finally:
        dist.destroy_process_group()
    Path(folder, f"{rank}.json").write_text(json.dumps(answers))


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the cases gave; all ranks must have given the same."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(rank_main, args=(str(folder),), nprocs=RANKS)  # pyright: ignore[reportPrivateImportUsage]
    texts = [(folder / f"{rank}.json").read_text() for rank in range(RANKS)]
    assert texts[0] == texts[1]
    return json.loads(texts[0])


def estimate_of(numbers: dict[str, float]) -> Any:
    return type("Numbers", (), {**numbers, "steps": int(numbers["steps"]), "skipped": int(numbers["skipped"])})


def test_ranks_one_device_accumulation_and_examples_agree(answers: dict[str, Any]) -> None:
    batches, model, another = regression(1, STEPS, ROWS, 5), model_of(), model_of()
    by_hooks, by_micro_batch = GradientNoise(model, groups=RANKS, every=1), MicroBatchNoise(another, every=1)
    by_example = PerExampleNoise(model, lambda output, target: ((output - target) ** 2).sum())
    for inputs, targets in batches:
        with by_hooks.measure(ROWS):
            losses(model, inputs, targets).mean().backward()
        by_example.measure(inputs, targets, keys=[0] * 6 + [1] * 6)
        another.zero_grad()
        for rows in GROUPS:
            (losses(another, inputs[rows], targets[rows]).mean() / RANKS).backward()
            by_micro_batch.micro_batch(len(rows))
        by_micro_batch.step()
    core = naive_meter(model, batches, GROUPS).estimate()
    by_ranks = [estimate_of(answers[case]) for case in ("plain", "static")]
    for found in (by_hooks.estimate(), by_micro_batch.estimate(), by_example.estimate(), *by_ranks):
        assert same(found, core, rel=1e-6)


def test_compressed_exchange_changes_no_more_than_rounding(answers: dict[str, Any]) -> None:
    core = naive_meter(model_of(), regression(1, STEPS, ROWS, 5), GROUPS).estimate()
    for name, tolerance in (("fp16_compress_hook", 0.005), ("bf16_compress_hook", 0.04)):
        found = answers["compressed"][name]
        assert found["grad_sq_norm"] == pytest.approx(core.grad_sq_norm, rel=tolerance)
        assert found["trace_cov"] == pytest.approx(core.trace_cov, rel=tolerance)


def test_accumulation_under_no_sync_in_several_buckets_by_layer(answers: dict[str, Any]) -> None:
    model, batches = model_of(200), regression(1, STEPS, ROWS, 5)[::2]
    assert list(answers["accumulated"]) == ["total", "layers.0", "layers.2", "layers.4"]
    assert same(estimate_of(answers["accumulated"]["total"]), naive_meter(model, batches, GROUPS).estimate())
    noise = GradientNoise(model, groups=RANKS, every=1, parts="layers")
    for inputs, targets in batches:
        with noise.measure(ROWS):
            losses(model, inputs, targets).mean().backward()
        model.zero_grad()
    for name, expected in noise.estimates().items():
        assert same(estimate_of(answers["accumulated"][name]), expected)


def test_the_scale_is_taken_out_and_a_step_that_overflows_is_skipped(answers: dict[str, Any]) -> None:
    batches = [batch for i, batch in enumerate(regression(1, STEPS, ROWS, 5)) if i != 1]
    core = naive_meter(model_of(), batches, GROUPS).estimate()
    found = answers["scaled"]
    assert (found["steps"], found["skipped"]) == (STEPS - 1, 1)
    assert found["b_simple"] == pytest.approx(core.b_simple, nan_ok=True)
    assert found["trace_cov"] == pytest.approx(core.trace_cov)


def test_what_ranks_cannot_measure_is_refused(answers: dict[str, Any]) -> None:
    starts = (
        "no gradients were exchanged",
        "gradients were exchanged twice",
        "a rank with 0 examples",
        "one rank gives no groups",
        "DistributedDataParallel mixes",
        "the model is sharded",
        "the model is sharded",
    )
    assert len(answers["refused"]) == len(starts)
    for message, start in zip(answers["refused"], starts, strict=True):
        assert message.startswith(start)
    with pytest.raises(ValueError, match="the model is a Linear: wrap it"):
        RankNoise(nn.Linear(3, 1))
