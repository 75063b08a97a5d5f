"""The exported user tower of a sequence model: float and int8, with torch alone, and refusals."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recsys.artifacts.manifest import sha256
from recsys.artifacts.quantisation import quantized_tower
from recsys.artifacts.sequence_export import SequenceExport, export_sequence_tower
from recsys.artifacts.sequence_tower import (
    TOWER_FILES,
    Embed,
    Precision,
    SequenceTowerManifest,
    load_sequence_tower,
)
from recsys.artifacts.timeline_tower import load_timeline_tower
from recsys.artifacts.torchscript import script_tower
from recsys.core.errors import ArtifactError
from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, Feature, FeatureKind, FeatureSide
from recsys.systems.nxtpost.net import ChannelConfig, SequenceTower, SequenceTowerConfig
from tests.manifests import EMPTY
from tests.rewritten import ARTIFACT_KIND, rewrite

WIDTH = 24
NOW = 1_500_000_000_000
DATASET = replace(
    EMPTY,
    features=(
        Feature("user_id", FeatureSide.USER, FeatureKind.CATEGORICAL, 10),
        Feature("country", FeatureSide.USER, FeatureKind.CATEGORICAL, 5),
        Feature("age", FeatureSide.USER, FeatureKind.DENSE, 0),
    ),
    surfaces=("unknown", "feed", "search"),
    fingerprint="toy",
)
CONFIGS = {
    "default": SequenceTowerConfig(width=32, max_length=20),
    "bidirectional": SequenceTowerConfig(
        width=32, max_length=20, cls=False, causal=False, pooling="mean", relative_time=False
    ),
    "channels": SequenceTowerConfig(
        width=32,
        max_length=20,
        channels=[ChannelConfig(), ChannelConfig(name="feed", surfaces=["feed"])],
        share_encoder=True,
        pooling="attention",
    ),
}


def tower(name: str = "default") -> SequenceTower:
    torch.manual_seed(0)
    return SequenceTower(CONFIGS[name], WIDTH, DATASET).eval()


def examples(lengths: list[int], seed: int = 0) -> tuple[SequenceBatch, Tensor]:
    """Histories of random items, and the items' embeddings."""
    generator = torch.Generator().manual_seed(seed)
    events, users = sum(lengths), len(lengths)

    def codes(highest: int, count: int) -> Tensor:
        return torch.randint(0, highest, (count,), generator=generator)

    age = [codes(1_000 * MILLISECONDS_PER_HOUR, n).sort(descending=True).values for n in lengths]
    none = torch.empty(0, dtype=torch.int64)
    batch = SequenceBatch(
        user=torch.arange(users),
        request_time=torch.full((users,), NOW),
        lengths=torch.tensor(lengths, dtype=torch.int64),
        item=torch.zeros(events, dtype=torch.int64),
        action_type=codes(13, events),
        surface=codes(3, events),
        timestamp=NOW - torch.cat([none, *age]) - 1,
        label_lengths=torch.zeros(users, dtype=torch.int64),
        label_item=none,
        user_categorical=codes(5, 2 * users).view(users, 2),
        user_dense=torch.randn(users, 1, generator=generator),
        query_id=torch.arange(users),
    )
    items = torch.randn(events, WIDTH, generator=generator)
    return batch, torch.nn.functional.normalize(items, dim=1)


def exported(folder: Path, name: str = "default", **changes: object) -> SequenceTowerManifest:
    folder.parent.mkdir(parents=True, exist_ok=True)
    config_file = folder.parent / "run.yaml"
    config_file.write_text("system: nxtpost\n")
    settings = {
        "post_embeddings": str(config_file),  # any file will do
        "training": {"run": "runs/toy", "seed": 0},
        "dataset_path": Path("prepared/toy"),
        "sequences": {"actions": [], "repeats": False, "has_times": True},
        "max_length": tower(name).max_length,
        "gap_hours": 0.0,
        "config_file": config_file,
        "examples": examples([0, 3, 20, 41, 7]),
    } | changes
    return export_sequence_tower(tower(name), DATASET, folder, SequenceExport(**settings))


def arguments(batch: SequenceBatch, items: Tensor) -> tuple[Tensor, ...]:
    return (
        items,
        batch.action_type,
        batch.surface,
        batch.timestamp,
        batch.lengths,
        batch.request_time,
        batch.user_categorical,
        batch.user_dense,
    )


def embed(module: torch.nn.Module, batch: SequenceBatch, items: Tensor) -> Tensor:
    with torch.inference_mode():
        return module(*arguments(batch, items))


@pytest.mark.parametrize("name", CONFIGS)
def test_both_forms_agree_with_the_trained_tower(name: str, tmp_path: Path) -> None:
    manifest = exported(tmp_path / "artifact", name)
    inputs = examples([5, 0, 12, 30, 1, 8], seed=1)
    trained = embed(tower(name), *inputs)
    exact = load_sequence_tower(tmp_path / "artifact").embed(*inputs)
    torch.testing.assert_close(exact, trained)
    int8 = load_sequence_tower(tmp_path / "artifact", "int8").embed(*inputs)
    torch.testing.assert_close(int8.norm(dim=1), torch.ones(6))
    cosine = (int8 * trained).sum(dim=1)
    assert cosine.min() > 0.99 and not torch.equal(int8, trained)
    assert 0.99 < manifest.agreement["lowest_cosine"] <= manifest.agreement["mean_cosine"] < 1


def test_int8_weights_are_within_half_a_step_of_the_float_ones() -> None:
    trained = tower()
    quantized = quantized_tower(trained)
    layers = [n for n, m in trained.named_modules() if isinstance(m, torch.nn.Linear)]
    tables = [n for n, m in trained.named_modules() if isinstance(m, torch.nn.Embedding)]
    assert len(layers) == 13 and len(tables) == 6
    for name in layers + tables:
        weight = trained.get_submodule(name).weight
        rows = quantized.get_submodule(name).weight()
        step = rows.q_per_channel_scales().unsqueeze(1)
        assert ((rows.dequantize() - weight).abs() <= 0.5001 * step + 1e-7).all()
        # 255 steps from the lowest to the highest weight of a row; rows of zeros are exact
        largest = weight.abs().amax(1, keepdim=True)
        assert (step <= 2.01 * largest / 255)[largest > 0].all()


def test_the_int8_weights_take_about_a_quarter_of_the_bytes(tmp_path: Path) -> None:
    sizes = exported(tmp_path / "artifact").sizes
    assert sizes["weights_float32_bytes"] == 4 * sum(p.numel() for p in tower().parameters())
    assert sizes["float_file_bytes"] > sizes["weights_float32_bytes"]
    assert sizes["int8_file_bytes"] < sizes["float_file_bytes"]


def test_a_process_with_torch_alone_embeds_the_same(tmp_path: Path) -> None:
    exported(tmp_path / "artifact")
    inputs = examples([5, 0, 12, 30], seed=2)
    torch.save(arguments(*inputs), tmp_path / "inputs.pt")
    program = (
        "import sys, torch\n"
        "inputs = torch.load('inputs.pt')\n"
        "for name in ('user_tower.pt', 'user_tower_int8.pt'):\n"
        "    torch.save(torch.jit.load('artifact/' + name)(*inputs), name)\n"
        "loaded = [m for m in sys.modules if m.split('.')[0] in "
        "('recsys', 'fbgemm_gpu', 'torchrec', 'lightning')]\n"
        "assert not loaded, loaded\n"
    )
    # -I: not even the checkout is on the path
    subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, check=True)
    for precision, name in TOWER_FILES.items():
        here = load_sequence_tower(tmp_path / "artifact", precision).embed(*inputs)
        torch.testing.assert_close(torch.load(tmp_path / name).detach(), here)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("lengths", [[0], [0, 0, 0], [], [1]])
def test_int8_takes_empty_histories_and_batches(name: str, lengths: list[int]) -> None:
    scripted = script_tower(quantized_tower(tower(name)))
    inputs = examples(lengths)
    embedding = embed(scripted, *inputs)
    assert embedding.shape == (len(lengths), WIDTH) and torch.isfinite(embedding).all()
    if lengths:
        assert ((embedding * embed(tower(name), *inputs)).sum(dim=1) > 0.99).all()


def test_metrics_of_both_forms_stand_side_by_side(tmp_path: Path) -> None:
    inputs = examples([5, 9])

    def measure(embed: Embed) -> dict[str, dict[str, object]]:
        return {"first": {"value": float(embed(*inputs)[0, 0]), "protocol": "one number"}}

    metrics = exported(tmp_path / "artifact", measure=measure).metrics
    assert set(metrics) == {"export/val/float/first", "export/val/int8/first"}
    for precision in Precision:
        artifact = load_sequence_tower(tmp_path / "artifact", precision)
        value = metrics[f"export/val/{precision}/first"]["value"]
        assert value == pytest.approx(float(artifact.embed(*inputs)[0, 0]))


def test_the_manifest_says_what_the_tower_takes(tmp_path: Path) -> None:
    exported(tmp_path / "artifact")
    manifest = load_sequence_tower(tmp_path / "artifact").manifest
    assert manifest.features == {"user_categorical": ["user_id", "country"], "user_dense": ["age"]}
    assert manifest.post_embeddings == {
        "model": sha256(tmp_path / "run.yaml"),
        "width": WIDTH,
        "path": str(tmp_path / "run.yaml"),
    }
    assert manifest.codes["surface"] == ["unknown", "feed", "search"]
    assert manifest.max_length == 20


def test_a_tower_that_quantisation_ruins_is_not_written(tmp_path: Path) -> None:
    """One weight per row so large that all others become 0."""
    exported(tmp_path / "artifact")
    before = (tmp_path / "artifact" / "manifest.json").read_text()
    ruined = copy.deepcopy(tower())
    with torch.no_grad():
        ruined.projection.weight[:, 0] = 1e6 * torch.randn(WIDTH)
        ruined.fusion.projection.weight.zero_()
        ruined.projection.bias.zero_()
        for summary in ruined.channels:
            for layer in summary.encoder.layers:
                layer.output_norm.weight[0] = 1e-7
                layer.output_norm.bias[0] = 0
        ruined.static.mlp[3].weight[0] = 1e-7
        ruined.static.mlp[3].bias[0] = 0
    config_file = tmp_path / "run.yaml"
    export = SequenceExport(
        str(config_file),
        {},
        tmp_path,
        {},
        ruined.max_length,
        0.0,
        config_file=config_file,
        examples=examples([3, 9, 14]),
    )
    with pytest.raises(ArtifactError, match="At 8 bits"):
        export_sequence_tower(ruined, DATASET, tmp_path / "artifact", export)
    assert (tmp_path / "artifact" / "manifest.json").read_text() == before


def test_other_artifacts_and_damage_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    exported(folder)
    with pytest.raises(ArtifactError, match="of the system nxtpost, expected one of dv365"):
        load_timeline_tower(folder)
    int8 = folder / "user_tower_int8.pt"
    int8.write_bytes(int8.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match="another SHA-256"):
        load_sequence_tower(folder)
    rewrite(folder / "manifest.json", ARTIFACT_KIND, {"model": "dv365"})
    with pytest.raises(ArtifactError, match="of the system dv365, expected one of nxtpost"):
        load_sequence_tower(folder)
