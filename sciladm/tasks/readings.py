"""How often the test split of a run was read: whoever looks twice may choose by it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sciladm.data.dataset import DataSet
from sciladm.data.times import Times

READS = "test_reads.jsonl"


def note_reading(
    task: str, data: DataSet, times: Times, line: Mapping[str, Any], run: Path, notes: list[str]
) -> int:
    """Append to the run that its test split is read, where ``times`` are in it, and count how
    often it was; a run that cannot be written to is used all the same, and ``notes`` say so."""
    path, unrecorded = run / READS, 0
    if "test" in data.splits.ranges and data.splits.mask("test", times).any():
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"task": task, **line}) + "\n")
        except OSError as error:
            unrecorded = 1
            notes.append("The test split was read, which could not be recorded in the run "
                         f"({READS}: {error.strerror}).")  # fmt: skip
    recorded = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return len(recorded) + unrecorded
