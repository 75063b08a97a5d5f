"""The tables of items and users that belong to a log, together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from recsys.core.errors import ConfigError
from recsys.data.contract.file_names import data_files
from recsys.data.contract.input_files import InputFile, describe_files
from recsys.data.contract.log_parts import LogData
from recsys.data.contract.schema import Column, Feature, FeatureSide
from recsys.data.contract.table_snapshots import TableSnapshot
from recsys.data.sources.tables import ItemTableOptions, StatedTable, UserTableOptions
from recsys.data.stores.encoding import list_feature


class LogTables:
    """What is stated of the items and the users of a log.

    Args:
        items: columns of items; None for none.
        users: columns of users; None for none.
        log: a Parquet or CSV file, a folder of them, or a frame.
        columns: column of the contract to the name it has in the log, where they differ.
        taken: names of the log's own features.
        chunk_rows: rows read at a time.

    Raises:
        ConfigError: two features would have one name.

    Attributes:
        items: the table of items.
        users: the table of users.
    """

    def __init__(
        self,
        items: ItemTableOptions | None,
        users: UserTableOptions | None,
        log: LogData,
        columns: Mapping[str, str | None],
        taken: Iterable[str],
        chunk_rows: int,
    ) -> None:
        items, users = items or ItemTableOptions(), users or UserTableOptions()
        # a name that items and users share is neither's alone
        shared = {*taken, *(_feature_columns(items) & _feature_columns(users))}
        item_id, user_id = (columns.get(name) or name for name in (Column.ITEM, Column.USER))
        self.items = StatedTable(FeatureSide.ITEM, items, log, item_id, shared, chunk_rows)
        self.users = StatedTable(FeatureSide.USER, users, log, user_id, shared, chunk_rows)
        self._refuse_shared_names()

    @property
    def features(self) -> tuple[Feature, ...]:
        """Categories and numbers of both."""
        return (*self.items.features, *self.users.features)

    @property
    def lists(self) -> dict[FeatureSide, tuple[str, ...]]:
        """Columns of several categories by side."""
        return {table.side: table.lists for table in (self.items, self.users)}

    @property
    def first_known(self) -> frozenset[FeatureSide]:
        """The sides whose columns are the log's own."""
        return frozenset(one.side for one in (self.items, self.users) if one.options.path is None)

    def inputs(self, known: Sequence[InputFile]) -> tuple[InputFile, ...]:
        """The files of the tables, by their content; named ``items/…`` and ``users/…``."""
        found: list[InputFile] = []
        for table in (self.items, self.users):
            if table.own is None:
                continue
            place = f"{table.side}s/"
            of_table = [
                replace(file, name=file.name.removeprefix(place))
                for file in known
                if file.name.startswith(place)
            ]
            if isinstance(table.own, TableSnapshot):
                files: tuple[InputFile, ...] = (table.own.described(),)
            else:
                files = describe_files(data_files(table.own, f"{table.setting}.path"), of_table)
            found += [replace(file, name=place + file.name, table=True) for file in files]
        return tuple(found)

    def _refuse_shared_names(self) -> None:
        """Refuse features of one name: both would be read as the one that comes last."""
        named = {table: table.stored_features for table in (self.items, self.users)}
        for table, stored in named.items():
            for name, column in stored.items():
                where = f"{table.setting}: the column {column} is stored as {name}"
                for other, others in named.items():
                    if other is not table and name in others:
                        raise ConfigError(
                            f"{where}, and so is {others[name]} of {other.setting}; give one of "
                            "them another name in the data."
                        )
                    for of_lists in other.lists:
                        if name.startswith(list_feature(of_lists, "")):
                            raise ConfigError(
                                f"{where}, a name that features of the lists "
                                f"{others[of_lists]} of {other.setting} have; give one of them "
                                "another name in the data."
                            )


def _feature_columns(options: UserTableOptions) -> set[str]:
    return {*options.categorical, *options.dense, *options.lists}
