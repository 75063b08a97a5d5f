"""The verbs of the `recsys` command that take nothing but settings, each with its examples."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """A verb that takes nothing but overrides.

    Attributes:
        name: the word after `recsys` (or after `recsys data`).
        module: module of `recsys.cli` with `run(overrides)`; imported when the verb is used, so
            that `recsys --help` answers at once.
        summary: what it does.
        examples: commands a user can copy.
        more: where in conf/ further settings lie, beside the file of the module.
        takes_description: whether the description of a data set may stand before the settings.
        takes: words that stand before the settings, as the help shows them.
        prints_json: whether it takes --json; its `run` has the flag as second argument.
        keeps_memory: whether what it frees is kept for what it does next, as a training's steps do.
    """

    name: str
    module: str
    summary: str
    examples: tuple[str, ...]
    more: str = ""
    takes_description: bool = False
    takes: str = ""
    prints_json: bool = False
    keeps_memory: bool = False


DATA_VERBS = (
    Verb(
        "simulate",
        "simulate",
        "Write a simulated interaction log whose best possible metrics are known.",
        (
            "recsys data simulate simulator=demo out=logs/demo",
            "recsys data simulate simulator=demo out=logs/demo table=s3://lake/events",
        ),
    ),
    Verb(
        "infer",
        "infer",
        "Look at a log of yours and draft its description, which every other command takes.",
        (
            "recsys data infer path=events.csv.gz out=mine.yaml",
            "recsys data infer path=events.parquet items=items.csv users=users.csv out=mine.yaml",
        ),
    ),
    Verb(
        "prepare",
        "prepare",
        "Validate a log, map its ids and write timelines and requests.",
        (
            "recsys data prepare mine.yaml",
            "recsys data prepare source=log path=my_log.parquet out=prepared/mine",
            "recsys data prepare source=kuairand path=KuaiRand-Pure/data out=prepared/kuairand",
        ),
        takes_description=True,
    ),
    Verb(
        "append",
        "append",
        "Add new days to a prepared data set: events, ids, request rows; the splits move on.",
        (
            "recsys data append mine.yaml path=new_day.parquet",
            "recsys data append out=prepared/mine path=new_day.parquet",
        ),
        takes_description=True,
    ),
    Verb(
        "describe",
        "describe",
        "Print what a prepared data set holds: counts, tasks, features, and every slice.",
        (
            "recsys data describe mine.yaml",
            "recsys data describe dataset=prepared/kuairand_pure slices=full",
        ),
        takes_description=True,
    ),
    Verb(
        "check",
        "check",
        "Read a prepared data set, or a store of embeddings, and compare it with its checksums.",
        ("recsys data check dataset=prepared/mine store=runs/mine/embeddings",),
        takes_description=True,
    ),
    Verb(
        "compact",
        "compact",
        "Merge the segments that appending has left in the timelines into one.",
        ("recsys data compact dataset=prepared/mine",),
        takes_description=True,
    ),
    Verb(
        "delete",
        "delete",
        "Remove a user from timelines, from a store of embeddings, or from both.",
        ("recsys data delete user=42 dataset=prepared/mine store=runs/mine/embeddings",),
        takes_description=True,
    ),
)
INDEX_VERBS = (
    Verb(
        "build",
        "index_build",
        "Make a FAISS index of item embeddings, or put items into the nodes of a tree (hsnn).",
        (
            "recsys index build embeddings=runs/post_tower_kuairand out=index/kuairand",
            "recsys index build run_dir=runs/tree out=index/tree",
        ),
    ),
    Verb(
        "add",
        "index_add",
        "Add new items to an index without building it anew.",
        (
            "recsys index add index=index/kuairand embeddings=new_posts.parquet",
            "recsys index add index=index/tree",
        ),
    ),
    Verb(
        "remove",
        "index_remove",
        "Remove items from an index, or all that have expired.",
        ("recsys index remove index=index/kuairand last_seen_before=2022-05-01",),
    ),
    Verb(
        "snapshot",
        "index_snapshot",
        "Make an immutable generation of an index as it is, and serve it.",
        ("recsys index snapshot index=index/tree out=served/tree",),
    ),
    Verb(
        "rollback",
        "index_rollback",
        "Serve the snapshot before the current one again, or another one.",
        ("recsys index rollback index=served/tree",),
    ),
    Verb(
        "report",
        "index_report",
        "Print how the items of a tree lie in its nodes, what has changed, and what is astray.",
        (
            "recsys index report index=index/tree",
            "recsys index report index=index/tree against=served/tree --json",
        ),
        prints_json=True,
    ),
)
CHECKPOINT_VERBS = (
    Verb(
        "inspect",
        "checkpoint_inspect",
        "Print the tensors of a checkpoint, and whether it is whole and undamaged.",
        ("recsys checkpoint inspect path=runs/mine/checkpoints/last.ckpt",),
    ),
    Verb(
        "unshard",
        "checkpoint_unshard",
        "Write a folder of shards as one file.",
        ("recsys checkpoint unshard path=runs/mine/checkpoints/best.ckpt out=best.ckpt",),
    ),
    Verb(
        "reshard",
        "checkpoint_reshard",
        "Write a checkpoint as the folder of another number of processes, or sharding type.",
        (
            "recsys checkpoint reshard path=runs/mine/checkpoints/last.ckpt out=last_64.ckpt "
            "world_size=64 sharding_type=column_wise",
        ),
    ),
)
EMBEDDING_VERBS = (
    Verb(
        "compare",
        "embeddings_compare",
        "Compare the embeddings of two publications: cosines, neighbours, norms, collapse.",
        (
            "recsys embeddings compare runs/monday/embeddings runs/tuesday/embeddings",
            "recsys embeddings compare redis://cache:6379/0 runs/tuesday/embeddings "
            "dataset=prepared/mine out=drift.html --json",
        ),
        takes="A B ",
        prints_json=True,
    ),
    Verb(
        "skew",
        "embeddings_skew",
        "Measure what a ranker loses when it is given other versions of the user embeddings.",
        (
            "recsys embeddings skew run_dir=runs/ranker "
            "stores=[runs/v/embeddings,runs/v1/embeddings,runs/v2/embeddings]",
        ),
        prints_json=True,
    ),
)
FUNNEL_VERBS = (
    Verb(
        "report",
        "funnel_report",
        "Sum up a ledger: what each stage of a funnel left, and what each source is worth.",
        ("recsys funnel report ledger=runs/ledger",),
        prints_json=True,
    ),
    Verb(
        "explain",
        "funnel_explain",
        "Show the candidates of a request: who found them, their scores, and where they ended.",
        ("recsys funnel explain ledger=runs/ledger request=42",),
    ),
    Verb(
        "adjuster",
        "funnel_adjuster",
        "Train the adjuster of a cache from a ledger: it predicts fresh scores from stale ones.",
        ("recsys funnel adjuster ledger=runs/ledger out=runs/adjuster.json",),
        prints_json=True,
    ),
    Verb(
        "prefetcher",
        "funnel_prefetcher",
        "Train what says when a list is made in advance: whether users visit, how long they wait.",
        ("recsys funnel prefetcher ledger=runs/ledger out=runs/prefetcher.json",),
        prints_json=True,
    ),
)
SERVICE_VERBS = (
    Verb(
        "swap",
        "service_swap",
        "Serve another funnel or data set; a running service takes it up between requests.",
        (
            "recsys service swap state=served/explore funnel=mine.yaml",
            "recsys service swap state=served/explore dataset=prepared/newer",
        ),
    ),
    Verb(
        "rollback",
        "service_rollback",
        "Serve the generation before the current one again, or another one.",
        ("recsys service rollback state=served/explore",),
    ),
    Verb(
        "point",
        "service_point",
        "Have a running service go over to an operating point of its cache, or back.",
        ("recsys service point state=served/explore point=busy",),
    ),
)
RECUR_VERBS = (
    Verb(
        "run",
        "recur_run",
        "Append a day, train, measure against what is served, publish, and serve the new one.",
        (
            "recsys recur run folder=recurring/feed path=day_12.parquet "
            "'train=[data=mine.yaml,system=dv365]'",
        ),
        keeps_memory=True,
    ),
    Verb(
        "status",
        "recur_status",
        "Print the generations of a recurring training; out= writes a page with figures too.",
        (
            "recsys recur status folder=recurring/feed",
            "recsys recur status folder=recurring/feed out=status.html",
        ),
    ),
    Verb(
        "rollback",
        "recur_rollback",
        "Serve the generation before the current one again.",
        ("recsys recur rollback folder=recurring/feed",),
    ),
    Verb(
        "learn",
        "recur_learn",
        "Train the first or second stage of a service again from its ledger, and serve it.",
        (
            "recsys recur learn state=served/explore folder=recurring/first",
            "recsys recur learn state=served/explore folder=recurring/second stage=second",
        ),
        keeps_memory=True,
    ),
    Verb(
        "play",
        "recur_play",
        "Play a funnel that learns by the hour in a simulated world, beside one that does not.",
        (
            "recsys recur play online.simulation=logs/explore online.policy=explore_models "
            "online.against=explore_models learning.dataset=prepared/explore "
            "learning.folder=runs/hourly",
        ),
        prints_json=True,
        keeps_memory=True,
    ),
)
_OF_SYSTEMS = "those of each system in conf/system/<system>.yaml"
VERBS = (
    Verb(
        "train",
        "train",
        "Train a model and write a run folder.",
        (
            "recsys train experiment=dv365_ebnerd trainer.max_epochs=2",
            "recsys train experiment=dv365_ebnerd "
            "warm_start.checkpoint=runs/mine/checkpoints/best.ckpt",
            "recsys train data=mine.yaml system=sequence run_dir=runs/mine",
            "recsys train system=nxtpost data=log data.path=log.parquet data.out=prepared/mine "
            "posts.path=posts.parquet run_dir=runs/posts",
            "recsys train run_dir=runs/mine resume=true",
            "recsys train data=mine.yaml system=sequence run_dir=s3://shop/runs/mine",
        ),
        more=_OF_SYSTEMS,
        keeps_memory=True,
    ),
    Verb(
        "plan",
        "plan",
        "Price the sharding plan of a run for a cluster: memory per rank, and whether it fits.",
        (
            "recsys plan experiment=dv365_kuairand world_size=64 device=h100",
            "recsys plan experiment=dv365_kuairand model.dimension=256 rows.item=200000000",
        ),
        more=f"those of the run in conf/train.yaml and {_OF_SYSTEMS}",
    ),
    Verb(
        "preflight",
        "preflight",
        "Check the nodes of a run before it: versions, GPUs, exchanges and how fast they are.",
        ("recsys preflight processes=2", "recsys preflight processes=2 out=checked"),
    ),
    Verb(
        "evaluate",
        "evaluate",
        "Measure a run on the report split, alone or against another run on the same rows, each at "
        "its checkpoint=best or checkpoint=last.",
        (
            "recsys evaluate run_dir=runs/mine against=runs/without_timelines",
            "recsys evaluate run_dir=runs/mine processes=4",
        ),
    ),
    Verb(
        "study",
        "study",
        "Train and evaluate variants over seeds, and write their table and plot.",
        (
            "recsys study study=encoders",
            "recsys study study=ebnerd seeds=[0,1,2] jobs=2 trainer.max_epochs=2",
            "recsys study study=ebnerd summarise_only=true",
            "recsys study study=nxtpost_globo view=nxtpost_staleness",
        ),
    ),
    Verb(
        "online",
        "online",
        "Play two policies in a simulated world: the same users, moments and draws, and intervals.",
        (
            "recsys online simulation=logs/explore policy=best against=popular users=1000 days=2",
            "recsys online simulation=logs/explore policy=recent_popular --json",
            "recsys online simulation=logs/explore policy=explore ledger=runs/ledger",
            "recsys online simulation=logs/explore policy=explore against=explore "
            "changes=[sources.fresh=null,exploration=null]",
        ),
        prints_json=True,
    ),
    Verb(
        "serve",
        "serve",
        "Serve a funnel over HTTP, from a prepared data set and what is reported since.",
        (
            "recsys serve funnel=explore dataset=prepared/explore state=served/explore",
            "recsys serve state=served/explore port=8081 workers=4",
        ),
    ),
    Verb(
        "precompute",
        "precompute",
        "Make lists off-peak, which a service gives where its funnel has no time.",
        ("recsys precompute state=served/explore users=100000",),
    ),
    Verb(
        "tune",
        "tune",
        "Tune numbers of a funnel in a simulated world: a goal up, other metrics within limits.",
        (
            "recsys tune funnel=explore tuning=explore simulation=logs/explore out=runs/tuned",
            "recsys tune funnel=explore tuning=explore simulation=logs/explore out=runs/mapped "
            "way=offline trials=6 drawn=4",
        ),
        more="conf/tuning",
        prints_json=True,
    ),
    Verb(
        "export",
        "export",
        "Write the user tower of a run as a TorchScript artifact: DV365 with quantised tables, "
        "NxtPost in float and int8.",
        ("recsys export run_dir=runs/mine",),
    ),
    Verb(
        "trust",
        "trust",
        "Add an artifact that somebody has handed over to the list of those that may be loaded.",
        ("recsys trust artifact=from_a_colleague/artifact",),
    ),
    Verb(
        "publish",
        "publish",
        "Compute user embeddings as of a moment and write them into a key-value store.",
        (
            "recsys publish run_dir=runs/mine as_of=2022-05-09T00:00:00",
            "recsys publish run_dir=runs/mine engine=ray engine.workers=8",
        ),
    ),
    Verb(
        "cost",
        "cost",
        "What embeddings computed ahead save: DV365's appendix A, with its inputs or yours.",
        (
            "recsys cost",
            "recsys cost history.users=2000000 dataset=prepared/mine run_dir=runs/mine "
            "reading.kilowatts=null reading.requests_per_second=500",
        ),
        prints_json=True,
    ),
    Verb(
        "recommend",
        "recommend",
        "Recommend items to users by a run, or by an exported user tower and an index.",
        (
            "recsys recommend run_dir=runs/mine user=42",
            "recsys recommend run_dir=runs/mine users=users.csv out=items.csv",
            "recsys recommend artifact=runs/mine/artifact index=index/mine user=42",
            "recsys recommend index=served/tree user=42",
        ),
    ),
    Verb(
        "score",
        "score",
        "Score given pairs of users and items, at any moment.",
        (
            "recsys score run_dir=runs/mine pairs=pairs.csv",
            "recsys score run_dir=runs/mine pairs=pairs.parquet out=scores.parquet",
        ),
    ),
    Verb(
        "report",
        "report",
        "Write report.html of a run and print its closing table.",
        ("recsys report run_dir=runs/mine against=runs/without_timelines",),
    ),
)
