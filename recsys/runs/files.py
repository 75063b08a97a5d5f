"""Names of what lies in a run folder (docs/architecture.md)."""

from __future__ import annotations

CONFIG_FILE = "config.yaml"
LOCK_FILE = ".lock"
WANDB_FILE = "wandb_run_id"
#: What the ranks print, where there are several.
LOGS = "logs"
#: Traces of some steps, with ``trainer.profile_steps``.
PROFILE = "profile"
#: What TensorBoard reads, and what Prometheus does.
TENSORBOARD = "tensorboard"
PROMETHEUS_FILE = "metrics.prom"
#: Why a training ended whose numbers went wrong; gone when the run is gone on with.
DIVERGED_FILE = "diverged.txt"
#: What `recsys publish` reported last.
PUBLICATION_FILE = "publication.json"
#: In front of the metrics of the choose split with the exported tower; those of DV365's same rows
#: without quantisation have ``trained/`` behind it.
EXPORT_PREFIX = "export/val"
