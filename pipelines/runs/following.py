"""A run in several processes: rank 0 leads and writes all files, the others take the same steps.

At the start of each stage the leader sends its complete state, so that the others need neither checkpoints nor
conversions, and a checkpoint does not depend on the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from steindreamer.distill.ranks import Ranks

from ..config.run_config import RunConfig
from ..optimization.edits import plain_edits, restore_edits
from ..optimization.stage import Stage
from .pipeline import Pipeline


class Lead:
    """The leader's side: tells the other processes which stage and step is next."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Within the context, the others wait for the steps of this stage, from its current state."""
        self.ranks.from_leader(stage.name)
        self.ranks.tensors_from_leader(stage.tensors())
        yield
        self.ranks.from_leader(False)

    def step(self, stage: Stage) -> None:
        """Let the others take the next step of the stage, with its edits."""
        self.ranks.from_leader({"edits": plain_edits(stage)})

    def end(self) -> None:
        """Let the others end; no stage follows."""
        self.ranks.from_leader("")


def follow(config: RunConfig, ranks: Ranks) -> None:
    """Take part in a run as a process that writes nothing, until the leader ends it.

    Args:
        config: The leader's settings.
        ranks: The processes of the run, of which this one is not the first.

    Raises UserError as `generate` does.
    """
    pipeline = Pipeline(config, ranks=ranks)
    while name := ranks.from_leader(None):
        stage = pipeline.followed(name)
        stage.load_tensors(ranks.tensors_from_leader(None))
        while message := ranks.from_leader(None):
            restore_edits(stage, message["edits"])
            stage.step()
