"""Whether a data set gives the ids that an exported tower knows the indices it was trained with."""

from __future__ import annotations

from recsys.artifacts.timeline_tower import TOWER_IDS, TimelineTowerArtifact
from recsys.core.errors import ArtifactError
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.vocabulary import INDEX, RAW, Vocabulary, vocabulary_path


def check_ids(artifact: TimelineTowerArtifact, dataset: PreparedDataset) -> None:
    """Compare the vocabularies and codes of a data set with those of the training.

    The data set of the training may have grown: new ids and names come behind the old ones.

    Raises:
        ArtifactError: indices or codes stand for other things than in training.
    """
    codes = artifact.manifest.codes
    present = {
        "surface": dataset.manifest.surfaces,
        "media_type": dataset.manifest.media_types,
        "action_type": dataset.manifest.action_types,
    }
    differing = [
        name for name, names in present.items() if list(names[: len(codes[name])]) != codes[name]
    ]
    for name in TOWER_IDS:
        trained = Vocabulary.load(vocabulary_path(artifact.folder, name)).table
        table = dataset.vocabulary(name).table.head(len(trained))
        # without any id there is no type either: the log may have grown a column of text
        if len(trained) and not table.select(RAW, INDEX).equals(trained.select(RAW, INDEX)):
            differing.append(name)
    if differing:
        raise ArtifactError(
            f"{dataset.path} gives other indices to {', '.join(differing)} than the data set that "
            f"{artifact.folder} was trained on; publish with that one, or train on this one."
        )
