"""Compare two evaluations on the same videos: how much better is A than B, and could it be chance?

    python -m stvideo.compare runs/evit runs/dense
    python -m stvideo.compare runs/x/sweep/predictions/keep_rate-0.5.csv runs/x/predictions.csv
    python -m stvideo.compare A B --json

A and B are folders with the predictions.csv of `stvideo.evaluate`, or such files. Videos are paired by their paths. The
interval of A - B is a bootstrap over videos (10,000 draws); McNemar's exact test looks at the videos that A alone or B
alone got right. Pairing tells smaller differences apart than the two accuracies by themselves, because the same videos
are hard for both. Other videos or classes are refused, other views are warned about. `stvideo.study` compares several
seeds of each.

    --json          everything as JSON on standard output
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stvideo.core.errors import StvideoError
from stvideo.evaluation.answers import Answers, check_comparable, read_answers
from stvideo.evaluation.paired import paired_difference
from stvideo.settings import cli


def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns its exit status."""
    positional, overrides = cli.split_arguments(argv, __doc__ or "", ("--json",))
    given = [text for text in positional if text != "--json"]
    if overrides or len(given) != 2:
        raise StvideoError(
            f"compare takes two evaluations, got {' '.join([*given, *overrides]) or 'nothing'}; "
            "example: python -m stvideo.compare runs/evit runs/dense"
        )
    a, b = (read_answers(Path(text)) for text in given)
    check_comparable(a, b)
    result = compare(a, b)
    print(json.dumps(result, indent=2) if "--json" in positional else in_words(result), flush=True)
    return 0


def compare(a: Answers, b: Answers) -> dict[str, Any]:
    """Compute the accuracies of both and their paired differences, in per cent."""
    result: dict[str, Any] = {"a": str(a.path), "b": str(b.path), "videos": len(a.truth)}
    ranks = min(len(next(iter(each.ranked.values()))) for each in (a, b))
    for k in (1, 5) if ranks >= 5 else (1,):
        hits = a.hits(k), b.hits(k)
        accuracies = {name: 100.0 * float(each.mean()) for name, each in zip("ab", hits, strict=True)}
        result[f"top{k}"] = accuracies | asdict(paired_difference(*hits))
    return result


def in_words(result: dict[str, Any]) -> str:
    """Write the comparison for people."""
    lines = [f"A  {result['a']}", f"B  {result['b']}", f"{result['videos']} videos"]
    for name in ("top1", "top5"):
        if name not in result:
            continue
        part = result[name]
        lines.append(f"top-{name[3:]}: A {part['a']:.2f} %, B {part['b']:.2f} %")
        if not part["only_a"] + part["only_b"]:
            lines.append("  A and B got the same videos right; that they differ cannot be told from these videos")
            continue
        interval = f"[{part['low']:+.2f}, {part['high']:+.2f}]"
        lines += [
            f"  A - B = {part['difference']:+.2f} points, 95 % interval {interval} (paired bootstrap over videos)",
            f"  A alone right on {part['only_a']} videos, B alone on {part['only_b']}; "
            f"McNemar's exact test: p = {part['p_value']:.2g}",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
