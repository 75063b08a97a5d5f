"""``python -m recsys``: the `recsys` command."""

from recsys.cli.main import main

main()
