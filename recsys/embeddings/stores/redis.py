"""The embedding store in Redis, for services that read over the network.

The same scheme as in LMDB; every step that must not be torn is one Lua script, which Redis runs
alone. One server (with replicas, if wanted): the scripts touch keys of several users, so a Redis
Cluster would have to hold them in one slot. How much survives a crash of the server is its own
setting (``appendfsync``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from recsys.core.redis_client import connect
from recsys.embeddings.stores.base import (
    WITHDRAWN_BYTES,
    EmbeddingStore,
    Publication,
    StoredEmbedding,
    decode_publication,
    decode_record,
    encode_publication,
)

#: Users handled by one script call: a script blocks the server while it runs.
USERS_PER_CALL = 256

_READ = """
local current = redis.call('GET', KEYS[1])
local found = {}
for position = 2, #KEYS do
  local best = false
  if current then
    for _, version in ipairs(redis.call('HKEYS', KEYS[position])) do
      local number = tonumber(version)
      if number <= cjson.decode(current).version and (not best or number > best) then
        best = number
      end
    end
  end
  found[position - 1] = best and {best, redis.call('HGET', KEYS[position], best)}
end
return found
"""

# KEYS: open version, deleted users, journal, versions with a journal, then the users' records.
# ARGV: version, then a user's key and its record, in turn.
_WRITE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SADD', KEYS[4], ARGV[1])
for position = 5, #KEYS do
  local user = ARGV[2 * (position - 4)]
  if redis.call('SISMEMBER', KEYS[2], user) == 0 then
    redis.call('HSET', KEYS[position], ARGV[1], ARGV[2 * (position - 4) + 1])
    redis.call('SADD', KEYS[3], user)
  end
end
return 1
"""

# KEYS: open version, current publication, deleted users. ARGV: version, publication.
_FLIP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
redis.call('DEL', KEYS[1], KEYS[3])
return 1
"""

# KEYS: journal, then the users' records. ARGV: version, then the users' keys.
_TAKE_BACK = """
for position = 2, #KEYS do
  redis.call('HDEL', KEYS[position], ARGV[1])
  redis.call('SREM', KEYS[1], ARGV[position])
end
"""

# As above: what is older than the user's record of the version, and that one if withdrawn.
_DROP_SUPERSEDED = f"""
local withdrawn = {WITHDRAWN_BYTES}
local dropped = 0
for position = 2, #KEYS do
  for _, version in ipairs(redis.call('HKEYS', KEYS[position])) do
    if tonumber(version) < tonumber(ARGV[1]) then
      dropped = dropped + redis.call('HDEL', KEYS[position], version)
    end
  end
  if redis.call('HSTRLEN', KEYS[position], ARGV[1]) == withdrawn then
    redis.call('HDEL', KEYS[position], ARGV[1])
  end
  redis.call('SREM', KEYS[1], ARGV[position])
end
return dropped
"""

# KEYS: open version, deleted users, versions with a journal, the user's records.
# ARGV: the user's key, the prefix of journals.
_DELETE = """
redis.call('DEL', KEYS[4])
for _, version in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  redis.call('SREM', ARGV[2] .. version, ARGV[1])
end
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('SADD', KEYS[2], ARGV[1]) end
"""


class RedisStore(EmbeddingStore):
    """A Redis database: one hash per user, version → record, beside journals and pointers.

    Args:
        url: ``redis://host:port/database``.
        prefix: in front of every key.

    Raises:
        ArtifactError: no server answers there, or it refuses; so of every method.
        ConfigError: ``url`` is no address of Redis.
    """

    def __init__(self, url: str, prefix: str = "recsys") -> None:
        super().__init__()
        self._client: Any = connect(url)
        self._prefix = prefix
        self._read_script = self._client.register_script(_READ)
        self._write_script = self._client.register_script(_WRITE)
        self._flip_script = self._client.register_script(_FLIP)
        self._take_back_script = self._client.register_script(_TAKE_BACK)
        self._drop_superseded_script = self._client.register_script(_DROP_SUPERSEDED)
        self._delete_script = self._client.register_script(_DELETE)

    def current(self) -> Publication | None:
        """The publication readers see, or None in a new store."""
        return decode_publication(self._client.get(self._key("current")), "in Redis")

    def size_bytes(self) -> int:
        """Bytes of memory the server uses for everything it holds."""
        return int(self._client.info("memory")["used_memory"])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def prune(self) -> int:
        """Drop superseded records, guided by the journals of committed versions."""
        publication = self.current()
        dropped = 0
        for version in self._journaled_versions():
            if publication is not None and version <= publication.version:
                dropped += sum(self._walk_journal(version, self._drop_superseded_script))
        return dropped

    def _key(self, name: str) -> str:
        return f"{self._prefix}:{name}"

    def _record_key(self, key: bytes) -> bytes:
        return self._key("record:").encode() + key

    def _journaled_versions(self) -> list[int]:
        return sorted(int(version) for version in self._client.smembers(self._key("journals")))

    def _walk_journal(self, version: int, script: Any) -> list[int]:
        """Run ``script``, which shortens the journal, on some users at a time until it is empty."""
        journal = self._key(f"journal:{version}")
        results = []
        while keys := self._client.srandmember(journal, USERS_PER_CALL):
            results.append(script([journal, *map(self._record_key, keys)], [version, *keys]))
        self._client.srem(self._key("journals"), version)
        return results

    def check(self) -> int:
        """Read every record and compare its checksum; returns how many there are."""
        self.current()
        records = 0
        for key in self._keys():
            for version, record in self._client.hgetall(self._record_key(key)).items():
                decode_record(key, int(version), record)
                records += 1
        return records

    def _read(self, keys: Sequence[bytes]) -> list[StoredEmbedding | None]:
        found = self._read_script([self._key("current"), *map(self._record_key, keys)])
        return [
            None if entry is None else decode_record(key, int(entry[0]), entry[1])
            for key, entry in zip(keys, found, strict=True)
        ]

    def _keys(self) -> Iterator[bytes]:
        prefix = self._record_key(b"")
        seen = set()  # SCAN may name a key twice
        for name in self._client.scan_iter(match=prefix + b"*", count=USERS_PER_CALL):
            if name not in seen:
                seen.add(name)
                yield name.removeprefix(prefix)

    def _take_version(self) -> int:
        version = int(self._client.incr(self._key("last_version")))
        with self._client.telling(), self._client.pipeline(transaction=True) as pipeline:
            pipeline.set(self._key("open_version"), version)
            pipeline.delete(self._key("deleted"))
            pipeline.execute()
        publication = self.current()
        for unfinished in self._journaled_versions():
            if publication is None or unfinished > publication.version:
                self._take_back(unfinished)
        return version

    def _take_back(self, version: int) -> None:
        self._walk_journal(version, self._take_back_script)

    def _write(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        version = self._publication().version
        names = ("open_version", "deleted", f"journal:{version}", "journals")
        for start in range(0, len(records), USERS_PER_CALL):
            chunk = records[start : start + USERS_PER_CALL]
            written = self._write_script(
                [*map(self._key, names), *(self._record_key(key) for key, _ in chunk)],
                [version, *(part for pair in chunk for part in pair)],
            )
            if not written:
                raise self._superseded()

    def _flip(self, publication: Publication) -> None:
        flipped = self._flip_script(
            [self._key(name) for name in ("open_version", "current", "deleted")],
            [publication.version, encode_publication(publication)],
        )
        if not flipped:
            raise self._superseded()

    def _delete(self, key: bytes) -> None:
        self._delete_script(
            [
                *(self._key(name) for name in ("open_version", "deleted", "journals")),
                self._record_key(key),
            ],
            [key, self._key("journal:")],
        )
