"""Finding posts for users: the index of post embeddings, and recommendations from it.

Imports: everything to the left of this room (``data`` to ``export``), never ``serving`` or ``cli``.
"""

from recsys.installation import require_supported_set

require_supported_set()
