"""`hublora train --dry-run` finds what would stop a training, and says what it would need."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hublora.errors import AccessError, ConfigError, DataError, NotFoundError
from hublora.training.config.training_config import TrainingConfig
from hublora.workflows.train.dry_run import dry_run

Cli = Callable[..., subprocess.CompletedProcess[str]]

GIVEN = {
    "base.model": "bases/epsilon",
    "data.dataset": "bases/images",
    "schedule.max_train_steps": 100,
    "train_batch_size": 2,
    "data.random_flip": True,
    "holdout.images": 1,
}


def config(tmp_path: Path, **changes: object) -> TrainingConfig:
    keys = {name.replace("__", "."): value for name, value in changes.items()}
    return TrainingConfig.from_settings(
        {**GIVEN, "output_dir": tmp_path / "run", "data.cache_dir": tmp_path / "cache", **keys}
    )


def test_it_says_what_the_training_would_do_and_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    flags = [f"--set={key}={value}" for key, value in GIVEN.items()]
    done = cli("train", *flags, "--output-dir", "run", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["images"] == 5
    assert found["held_out"] == 1
    assert found["steps"] == 100
    assert found["images_per_step"] == 2
    assert (found["skipped"], found["size"]) == (0, [64, 64])
    assert (found["learning_rate"], found["token_embedding_lr"]) == (1e-4, None)
    assert (found["previews"], found["gallery"]) == (0, 8)
    assert found["base"].startswith("bases/epsilon@")
    assert found["base_license"] == "apache-2.0"
    assert found["settings"]["data.revision"], "pinned"
    assert found["push_to"] is None
    assert found["train_seconds"] == pytest.approx(100 * found["step_seconds"])
    assert 0 < found["step_seconds"] < 60
    passes = 8 * 4 * 2  # images, steps as the base's card says, with and without the prompt
    assert found["generate_seconds"] == pytest.approx(passes * found["step_seconds"] / 2 / 3)
    assert found["memory"] > 1e8
    assert 0 < found["disk"] < found["disk_free"]
    assert not (tmp_path / "run").exists()


def test_what_would_keep_it_from_starting_is_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="bases/nothing"):
        dry_run(config(tmp_path, base__model="bases/nothing"))
    with pytest.raises(DataError, match="tekst"):
        dry_run(config(tmp_path, data__caption_column="tekst"))
    with pytest.raises(ConfigError, match="to_x"):
        dry_run(config(tmp_path, adapter__targets=["to_x"]))
    with pytest.raises(AccessError, match="else"):
        dry_run(config(tmp_path, hub__push=True, hub__model_id="somebody-else/lora"))


def test_the_disk_must_hold_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="GB of disk"):
        dry_run(
            config(
                tmp_path,
                adapter__rank=1000,
                checkpoint__steps=1,
                checkpoint__total_limit=None,
                schedule__max_train_steps=10_000_000,
            )
        )


def test_images_that_are_encoded_cost_no_time(tmp_path: Path) -> None:
    from hublora.progress import no_callback
    from hublora.workflows.train.prepare import encode, prepare_run

    chosen = config(tmp_path, data__aspect_buckets=True)
    before = dry_run(chosen)
    assert before.encode_seconds > 0
    assert before.buckets == {"64×64": 6}
    ready = prepare_run(chosen, None, no_callback)
    encode(ready.config, ready.base, ready.pipe, ready.source, ready.accelerator.device)
    assert dry_run(chosen).encode_seconds == 0


def test_a_person_reads_what_it_takes_and_every_setting_that_was_chosen() -> None:
    from hublora.cli.train_plan import plan_lines
    from hublora.workflows.train.dry_run import DryRunReport

    chosen = TrainingConfig.from_settings({"base.model": "a/b", "optimizer.name": "prodigy"})
    lines = plan_lines(
        DryRunReport(
            settings=chosen.flat(),
            base="a/b@12345678",
            base_license="apache-2.0",
            dataset="me/images",
            dataset_license=None,
            images=90,
            captions_from="column 'text'",
            skipped=2,
            held_out=10,
            buckets={"1024×1024": 60, "832×1216": 30},
            class_images=7,
            preserved="The base's own prediction is preserved for 'dog'",
            size=(1024, 1024),
            weights=797_184,
            learning_rate=1.0,
            token_embedding_lr=2e-3,
            steps=1500,
            images_per_step=4,
            device="a GPU",
            encode_seconds=65,
            step_seconds=3.1,
            train_seconds=4650,
            generate_seconds=4000,
            previews=40,
            gallery=8,
            memory=2_900_000_000,
            memory_available=8_000_000_000,
            disk=120_000_000,
            disk_free=500_000_000_000,
            push_to=None,
            checkpoints_at=None,
        )
    )
    text = "\n".join(lines)
    assert (
        "90 of me/images, 2 skipped, 10 held out, 7 class images to generate first (licence: not"
        in text
    )
    assert "Captions   column 'text'" in text
    assert "797,184 weights, 1,500 steps of 4 images on a GPU" in text
    assert (
        "text-to-image, learning rate 1 and 0.002 of the token embeddings, about 1024×1024 pixels"
        in text
    )
    assert "8 images at the end, 40 previews" in text
    assert "120 MB of the 500 GB free" in text
    assert "1 min to encode, then 1 h 17 min to train (3.1 s a step), and about 1 h 6 min" in text
    assert "2.9 GB of 8.0 GB" in text
    assert "Preserved  The base's own prediction is preserved for 'dog'" in text
    assert lines[lines.index("Shapes") + 2].split() == ["832×1216", "30", "█" * 15]
    assert lines[-3:] == ["Settings", "  base.model: a/b", "  optimizer.name: prodigy"]


def test_it_shows_what_a_preset_sets(hublora_cli, tmp_path: Path) -> None:
    command = ["train", "--base", "bases/epsilon", "--dataset", "bases/images", "--dry-run"]
    command += ["--output-dir", str(tmp_path / "run"), "--preset", "style", "--rank", "4"]
    shown = hublora_cli(*command).out
    assert "preset: style" in shown
    assert "adapter.conv_rank: 16" in shown
    assert "adapter.rank" not in shown, "4 is the default, and what was asked for"
