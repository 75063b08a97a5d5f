"""What `recsys recur status` prints, and its page in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.cli.main import invoke
from recsys.data.contract.moments import to_text
from recsys.recurring.generations import MEASURED, REFRESHED, REFUSED, Generations
from recsys.recurring.status import rows, sentences, tables
from tests.recurring.made import DAY, START, folder_of, generation

WHY = "its mean NE is worse by +2.00 % [+1.10, +2.90] than that of generation 2"


@pytest.fixture
def made(tmp_path: Path) -> Generations:
    """Five days, the third and the last refused; of one the training diverged."""
    several = [
        generation(1, done={MEASURED: {"change": None}}),
        generation(2),
        generation(3, state=REFUSED, why=WHY),
        generation(4),
        generation(5, state=REFUSED, steps=1, why="the loss is not finite <b>"),
    ]
    return folder_of(tmp_path / "made", *several)


def test_age_grows_while_generations_are_refused(made: Generations) -> None:
    found = rows(made)
    assert [row.is_current for row in found] == [False, False, False, True, False]
    assert [row.age for row in found[:4]] == [0.0, 0.0, 24.0, 0.0]
    assert found[4].day is None and found[4].age != found[4].age
    assert found[3].seconds["trained"] == 20.0
    assert (found[1].day - found[0].day) == DAY
    made.roll_back()
    assert [row.is_current for row in rows(made)].index(True) == 1


def test_it_is_printed_and_written_as_a_page(
    made: Generations, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "pages" / "status.html"
    words = ["recur", "status", f"folder={made.folder}", f"out={page}"]
    assert invoke(words) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Generation 4 is served, of the log until" in printed
    assert "Generation 5 was refused: the loss is not finite" in printed
    assert WHY not in printed  # a later one is served
    html = page.read_text()
    assert html.count("<svg") == 4 and WHY in html and "&lt;b&gt;" in html
    assert invoke(words) == 0  # its own page is replaced
    page.write_text("somebody's")
    assert invoke(words) == 2
    assert page.read_text() == "somebody's"
    assert invoke([*words[:3], "out=status.txt"]) == 2
    assert "whose name ends in .html" in capsys.readouterr().err


def test_embeddings_that_were_published_between_trainings_are_young(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = [
        generation(1),
        generation(2, state=REFRESHED, base=1),
        generation(3, state=REFRESHED, base=1),
        generation(4, state=REFUSED, why=WHY),
    ]
    generations = folder_of(tmp_path / "made", *several)
    found = rows(generations)
    assert [row.age for row in found] == [0.0, 0.0, 0.0, 24.0]
    assert [row.day for row in found] == [START + number * DAY for number in range(1, 5)]
    assert [row.is_current for row in found] == [True, False, False, False]
    (published,) = (one[-2] for one in tables(found[1:2])["Generations"][1:])
    assert published == "1,204 of 1,792"
    assert tables(found)["Generations"][3][1] == "refreshed 1"
    page = tmp_path / "status.html"
    assert invoke(["recur", "status", f"folder={generations.folder}", f"out={page}"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    as_of = to_text(START + 4 * DAY)
    assert f"Its embeddings were published anew as of {as_of}." in printed
    assert as_of in page.read_text()
    # of another one that is served by now nothing is said
    generations.serve(generations.write(generation(5)))
    assert "published anew" not in " ".join(sentences(rows(generations)))


def test_before_the_first_generation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generations = folder_of(tmp_path / "made")
    page = tmp_path / "status.html"
    assert invoke(["recur", "status", f"folder={generations.folder}", f"out={page}"]) == 0
    assert "No generation is served yet." in capsys.readouterr().out
    assert "<svg" not in page.read_text()
