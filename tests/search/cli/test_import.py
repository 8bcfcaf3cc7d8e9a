"""The `import` command on images of the user: each form is imported, shown and verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.data.importers.test_tables import images, table

Command = Callable[..., Any]


def check(twinhead: Command, *arguments: object) -> dict[str, Any]:
    """Import to 'set', inspect and verify it; the JSON of the import."""
    said = twinhead("import", *arguments, "set", "--json")
    assert said.code == 0, said.err
    assert twinhead("inspect", "set", "--out", "sheet.png").code == 0
    assert Path("sheet.png").exists()
    verified = twinhead("verify", "set", "--json")
    assert (verified.code, json.loads(verified.out)["whole"]) == (0, True)
    values = json.loads(said.out)
    assert isinstance(values, dict)
    return values


def test_a_table_is_imported_inspected_and_verified(twinhead: Command, tmp_path: Path) -> None:
    """From the files to a whole data set."""
    table(tmp_path / "t.csv", images(tmp_path))

    values = check(twinhead, "t.csv")

    assert values["counts"] == {"samples": 4, "backgrounds": 2, "foregrounds": 4}
    assert values["source"]["reason"] == "4 rows of 't.csv'"


def test_problems_of_a_table_have_their_rows_in_json(twinhead: Command, tmp_path: Path) -> None:
    """A script corrects the rows."""
    table(tmp_path / "t.csv", images(tmp_path))
    (tmp_path / "targets/2/d.png").unlink()

    said = twinhead("import", "t.csv", "set", "--json")

    assert said.code == 2
    (problem,) = json.loads(said.out)["problems"]
    assert (problem["kind"], problem["role"], problem["row"]) == ("missing", "depth", 3)
    assert not Path("set").exists()
