"""What a study declares, and the runs that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from omegaconf import MISSING

from recsys.core.bounds import CountOrZero, Finite, Jobs, Name, OneOf, OutPath, Seed, Settings
from recsys.core.composition import to_yaml
from recsys.core.errors import ArtifactError, ConfigError
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split
from recsys.evaluation.config import PREFIXES
from recsys.runs.config import RunConfig
from recsys.runs.files import CONFIG_FILE
from recsys.systems.choice import compose_run
from recsys.systems.runs import load_config

STUDIES = Path("runs") / "studies"

#: Stands for the points in ``within``.
POINT = "{point}"

#: Settings of a run that the study gives itself.
_OWN_SETTINGS = ("seed", "run_dir", "resume")


@dataclass(frozen=True)
class Variant(Settings):
    """One line of a study's table.

    Attributes:
        of: the variant whose overrides come before its own.
        overrides: settings of its runs, as after `recsys train`.
        seeds: seeds of its runs; None for the study's, [] leaves the variant out.
        at: where it lies on the study's ``axis``.
        line: what it is called in the table and the plot; None for its name. Variants at several
            points of the axis make up one line.
    """

    of: str | None = None
    overrides: list[str] = field(default_factory=list)
    seeds: list[Seed] | None = None
    at: Finite | None = None
    line: str | None = None


@dataclass(frozen=True)
class StudyConfig(Settings):
    """A study; conf/study/ holds one file per study, conf/view/ further tables of its runs.

    Attributes:
        name: part of the default folder.
        outcome: name of the files with the table and the plot.
        overrides: settings of every run, as after `recsys train`; a variant's come after them.
        variants: by name.
        only: the variants that are run and shown, in this order; [] for all.
        baseline: the variant that all others are measured against, seed by seed; None where the
            metrics of each variant stand for themselves (retrieval).
        metrics: what is shown of each variant where there is no baseline, ``hits@10/all``.
        scorers: untrained scorers of `recsys evaluate` that are shown beside the variants.
        axis: what the variants, or the points within each run, differ in.
        within: where ``metrics.json`` has the metrics of a point within a run, without the split:
            ``stale/{point}_days``. Points are whatever the runs have there.
        along: the metric that says where a variant, or a point within a run, lies on the axis.
        reference: the variant that the changes of the others are against; None for the first point
            of each line.
        seeds: of every variant that names none of its own.
        split: rows that are measured: ``report``, or ``choose`` while a model is being developed.
        out: folder of the study; None for ``runs/studies/<name>``.
        jobs: runs at a time; with more than one the cores are divided among them.
        rare_positives: tasks with fewer positives in the measured rows are marked.
        dry_run: print the runs and what state they are in, and do nothing.
        summarise_only: make the tables from the runs that are finished.
    """

    name: Name = MISSING
    outcome: str = "study"
    overrides: list[str] = field(default_factory=list)
    variants: dict[str, Variant] = field(default_factory=dict)
    only: list[str] = field(default_factory=list)
    baseline: str | None = None
    metrics: list[str] = field(default_factory=list)
    scorers: list[str] = field(default_factory=list)
    axis: str | None = None
    within: str | None = None
    along: str | None = None
    reference: str | None = None
    seeds: list[Seed] = field(default_factory=lambda: [0])
    split: Annotated[str, OneOf(tuple(PREFIXES))] = "report"
    out: OutPath | None = None
    jobs: Jobs = 1
    rare_positives: CountOrZero = 150
    dry_run: bool = False
    summarise_only: bool = False

    def __post_init__(self) -> None:
        """Refuse studies that cannot work."""
        super().__post_init__()
        if self.baseline is None and not self.metrics:
            raise ConfigError(
                "a study needs a baseline that its variants are measured against, or metrics=[…] "
                "to show of each."
            )
        self._check_variants()
        self._check_axis()
        if self.baseline is not None:
            self._check_baseline(self.baseline)

    def _check_variants(self) -> None:
        for name in self.only:
            self._check_name(name, f"only={self.only}")
        for name in self.variants:
            seen = [name]
            while (base := self.variants[seen[-1]].of) is not None:
                self._check_name(base, f"variants.{seen[-1]}.of={base}")
                if base in seen:
                    raise ConfigError(f"the variants {' of '.join([*seen, base])} go in a circle.")
                seen.append(base)

    def _check_name(self, name: str, where: str) -> None:
        if name not in self.variants:
            raise ConfigError(
                f"{where}: {name} is none of the variants {', '.join(self.variants)}."
            )

    def _check_axis(self) -> None:
        if self.reference is not None:
            self._check_name(self.reference, f"reference={self.reference}")
        if self.along is not None and (self.axis is None or self.baseline is not None):
            raise ConfigError(
                f"along={self.along} says where something lies on an axis: it needs an axis=… that "
                "says what that is, and a study without a baseline."
            )
        placed = [name for name in self.chosen if self.variants[name].at is not None]
        if self.within is not None:
            if POINT not in self.within or self.axis is None or self.baseline is not None:
                raise ConfigError(
                    f"within={self.within} needs {POINT} in it, an axis=… that says what the "
                    "points are, and a study without a baseline."
                )
            if self.scorers or placed:
                raise ConfigError(
                    f"within={self.within} shows points within each run; scorers, and variants "
                    "with at=…, have none: give scorers=[], or leave within out."
                )
        elif self.along is not None and placed:
            raise ConfigError(
                f"along={self.along} says where variants lie on the axis; leave out at=… of "
                f"{placed[0]}."
            )
        elif self.axis is not None and self.along is None and placed != self.chosen:
            others = ", ".join(name for name in self.chosen if name not in placed)
            raise ConfigError(
                f"axis={self.axis}: variants.….at is needed of {others}; or leave them out with "
                "only=[…]."
            )
        elif self.axis is None and placed:
            raise ConfigError(f"variant {placed[0]} has at=…; say with axis=… what that is.")

    def _check_baseline(self, baseline: str) -> None:
        if baseline not in self.chosen:
            raise ConfigError(
                f"baseline={baseline} is none of the variants {', '.join(self.chosen)}."
            )
        if not self.seeds_of(baseline):
            raise ConfigError("the baseline has no seeds; give seeds=[0], for example.")
        for name in self.chosen:
            missing = set(self.seeds_of(name)) - set(self.seeds_of(baseline))
            if missing:
                raise ConfigError(
                    f"variant {name} has seed {min(missing)}, the baseline {baseline} has not: a "
                    "run is measured against the baseline of the same seed."
                )

    @property
    def folder(self) -> Path:
        """The folder of the study."""
        return Path(self.out) if self.out is not None else STUDIES / self.name

    @property
    def title(self) -> str:
        """What the table is called."""
        standard = self.outcome == StudyConfig.outcome
        return self.name if standard else f"{self.name}, {self.outcome}"

    def file(self, ending: str) -> Path:
        """The table or the plot: ``study.md`` and so on."""
        return self.folder / f"{self.outcome}.{ending}"

    @property
    def prefix(self) -> str:
        """What the names of the measured split's metrics begin with."""
        return PREFIXES[Split(self.split)]

    @property
    def chosen(self) -> list[str]:
        """Names of the variants that are run and shown, in order."""
        return self.only or list(self.variants)

    def seeds_of(self, variant: str) -> list[int]:
        """The seeds of a variant's runs."""
        own = self.variants[variant].seeds
        return self.seeds if own is None else own

    def overrides_of(self, variant: str) -> list[str]:
        """Settings of a variant's runs: those of the study, of what it is a variant of, its own."""
        one = self.variants[variant]
        before = self.overrides if one.of is None else self.overrides_of(one.of)
        return [*before, *one.overrides]


@dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Attributes:
        variant: its variant.
        seed: its seed.
        folder: its run folder.
        overrides: what follows `recsys train`.
        config: what they compose to.
    """

    variant: str
    seed: int
    folder: Path
    overrides: tuple[str, ...]
    config: RunConfig

    @property
    def name(self) -> str:
        """Variant and seed."""
        return f"{self.variant}, seed {self.seed}"


def plan(config: StudyConfig) -> list[StudyRun]:
    """The runs of a study, the baseline's first.

    Raises:
        ConfigError: an override does not fit a run.
        ArtifactError: a run folder holds a run with other settings.
    """
    names = sorted(config.chosen, key=lambda name: name != config.baseline)
    runs = [_run(config, name, seed) for name in names for seed in config.seeds_of(name)]
    for run in runs:
        _check_settings(run)
    return runs


def _run(config: StudyConfig, variant: str, seed: int) -> StudyRun:
    folder = config.folder / variant / f"seed_{seed}"
    given = config.overrides_of(variant)
    for override in given:
        if override.split("=", 1)[0] in _OWN_SETTINGS:
            raise ConfigError(
                f"`{override}`: a study sets {', '.join(_OWN_SETTINGS)} of its runs itself; "
                "seeds=[…] gives their seeds."
            )
    # what a variant does not give is the same in all of them, whatever the data
    own = (f"seed={seed}", f"run_dir={folder}", "trainer.progress_bar=false")
    overrides = (*given, "settings_by_size=false", *own)
    return StudyRun(variant, seed, folder, overrides, compose_run(overrides))


def _check_settings(run: StudyRun) -> None:
    """A finished run counts as one of the study only if it was made with the same settings."""
    if not (run.folder / CONFIG_FILE).is_file():
        return
    out = str(run.config.data.out_folder.resolve())  # a run folder holds the absolute path
    planned = replace(run.config, data=replace(run.config.data, out=out))
    planned = planned.on(DatasetManifest.load(run.folder))  # what was left to the data set
    found, expected = (to_yaml(c).splitlines() for c in (load_config(run.folder), planned))
    if found == expected:
        return
    other = next(pair for pair in zip(found, expected, strict=False) if pair[0] != pair[1])
    raise ArtifactError(
        f"{run.folder} holds a run with other settings (`{other[0].strip()}`, the study has "
        f"`{other[1].strip()}`); delete that folder, or give the study another out=."
    )
