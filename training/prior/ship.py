"""Build the shipped folder from a training run: python -m steindreamer.training.prior.ship --run FOLDER

The folder holds the weights in half precision, checksums, a preview grid of samples, and a model card with figures from
the records of the run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from steindreamer.distill.files.digests import write_manifest

from .card import read_records, write_card
from .model import load_pipeline, network_of, save_tiny_prior
from .sample import contact_sheet, default_prompts

SHIPPED = Path(__file__).parents[2] / "assets" / "tiny_world_prior"
LARGEST_MEGABYTES = 40.0
_AZIMUTHS, _SEED = 4, 0


def ship(run: Path, out: Path) -> float:
    """Write the folder; returns its size in megabytes.

    Raises:
        OSError: The run lacks a file.
        ValueError: The run has no evaluation, or the folder is too large.
    """
    records = read_records(run / "evaluation.jsonl")
    settings = json.loads((run / "settings.json").read_text())
    trained = load_pipeline(run / "prior")
    described = trained.config["kinds"], trained.config["held_out"], trained.config["training_steps"]
    save_tiny_prior(out, network_of(trained), trained.tokenizer, *described)
    pipeline = load_pipeline(out)
    prompts = default_prompts(pipeline)
    sheet = contact_sheet(pipeline, prompts, _AZIMUTHS, 1.0, _SEED)
    scale = 2 if len(pipeline.modalities) == 1 else 1
    sheet.resize((scale * sheet.width, scale * sheet.height)).save(out / "samples.jpg", quality=88)
    write_manifest(out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    if size > LARGEST_MEGABYTES:
        raise ValueError(f"{out} has {size:.1f} MB, {LARGEST_MEGABYTES:.0f} are the most; train a smaller network")
    (out / "README.md").write_text(write_card(pipeline, settings, records, prompts, size), encoding="utf-8")
    return size


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run", type=Path, required=True, metavar="FOLDER", help="of steindreamer.training.prior.train"
    )
    parser.add_argument("--out", type=Path, default=SHIPPED, metavar="FOLDER")
    given = parser.parse_args(arguments)
    print(f"{given.out}: {ship(given.run, given.out):.1f} MB")


if __name__ == "__main__":
    main()
