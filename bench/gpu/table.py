"""The results of gpu.sh as a Markdown table: `python -m gpu.table gpu.jsonl`; ends with 1 where one did not pass."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def rounded(value: Any) -> Any:
    """Four digits of every number, also in lists."""
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def row(result: dict[str, Any]) -> str:
    values = {name: rounded(value) for name, value in result.items() if name not in ("kind", "name", "passed")}
    passed = "yes" if result["passed"] else "**NO**"
    return f"| {result['kind']}: {result['name']} | {passed} | {json.dumps(values)[:200]} |"


def table(results: list[dict[str, Any]]) -> str:
    failed = sum(not result["passed"] for result in results)
    lines = ["| what | passed | values |", "|---|---|---|", *map(row, results), ""]
    return "\n".join([*lines, f"{len(results) - failed} of {len(results)} passed"])


def main(path: str) -> int:
    results = [json.loads(line) for line in Path(path).read_text().splitlines()]
    print(table(results))
    return 0 if results and all(result["passed"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
