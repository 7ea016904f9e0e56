"""``python -m benchmarks``: run all benchmarks, write results/<name>.json, the tables of docs/benchmarks.md
and its pictures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from . import (
    bench_chain,
    bench_compat,
    bench_evaluation,
    bench_fleet,
    bench_gpu,
    bench_growth,
    bench_jobs,
    bench_labels,
    bench_memory,
    bench_segments,
    bench_start,
    bench_tuning,
    bench_walk,
    common,
    pictures,
)

MODULES = (
    bench_chain,
    bench_evaluation,
    bench_labels,
    bench_segments,
    bench_growth,
    bench_jobs,
    bench_memory,
    bench_start,
    bench_tuning,
    bench_fleet,
    bench_compat,
    bench_gpu,
    bench_walk,
)
BENCHMARKS = {module.NAME: module for module in MODULES}
CLONES = {
    "rskp": "a clone of LeonHLJ/RSKP",
    "gaufuse": "a clone of zhou745/GauFuse_WSTAL",
    "nms1d": "the folder that holds ActionFormer's or OpenTAD's built nms_1d_cpu",
    "anet": "a clone that has the class ANETdetection, such as BaSNet's",
}


def main(names: Sequence[str] = (), arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    if not names:
        parser.add_argument("names", nargs="*", metavar="name", help=f"some of {', '.join(BENCHMARKS)} (default: all)")
    for name, what in CLONES.items():
        parser.add_argument(f"--{name}", type=Path, metavar="PATH", help=f"{what}, as one more contender")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; writes nothing")
    parser.add_argument("--redraw", action="store_true", help="measure nothing; write the page and its pictures anew")
    args = parser.parse_args(arguments)
    chosen = list(names or args.names or BENCHMARKS)
    unknown = sorted(set(chosen) - set(BENCHMARKS))
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if args.redraw:
        write(chosen)
        return
    clones = {name: getattr(args, name) for name in CLONES if getattr(args, name) is not None}
    for name in chosen:
        module = BENCHMARKS[name]
        report = module.run(clones=clones, **(module.QUICK if args.quick else {}))
        print(common.markdown(report.to_dict()), flush=True)
        if not args.quick:
            common.write_json(report, common.RESULTS)
            write([name])


def write(drawn: Sequence[str]) -> None:
    """The page, and the pictures of those benchmarks, from what is in results/."""
    for report in common.read_reports(common.RESULTS, drawn):
        pictures.draw(report, common.IMAGES)
    common.write_docs(common.RESULTS, common.DOCS, list(BENCHMARKS))


if __name__ == "__main__":
    main()
