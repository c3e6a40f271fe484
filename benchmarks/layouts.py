"""The trial's choice against every fixed choice of compute options, over all rows."""

import argparse
import statistics
from functools import partial
from itertools import repeat
from typing import Any

import torch

from ablations import PAPER, get_regime
from benchmarks.measure import RESULTS, interleaved, write
from training.autotune import Work, choose
from training.execution import ComputeOptions
from training.recipe import Recipe
from training.update import update


def _step(work: Work, options: ComputeOptions) -> None:
    with options.applied():
        train_state = work.train_state(options, work.precision)
        update(train_state, 0, repeat(work.noise(work.images)), lr=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--regime", default="mini", choices=["mini", "small", "tiny", "base"])
    add("--resolution", type=int, default=64, help="pixels")
    add("--batch", type=int, default=64, help="images per step")
    add("--precision", default="fp32", choices=["fp32", "bf16"])
    add("--steps", nargs="*", help="names or numbers; all rows if none is given")
    add("--rounds", type=int, default=9, help="timings of each choice")
    add("--seconds", type=float, default=12, help="limit for the timings of one row")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    regime, cores = get_regime(options.regime), torch.get_num_threads()
    default = str(ComputeOptions(channels_last=False, threads=cores))
    counts = {cores, max(1, cores // 2), 1} if device.type == "cpu" else {cores}
    fixed = [
        ComputeOptions(last, False, count, rewritten)
        for count in sorted(counts, reverse=True)
        for last, rewritten in ((True, False), (False, False), (True, True))
    ]
    chosen = [PAPER.step(name, regime) for name in options.steps or ()] or [
        step for step in PAPER.steps_in(regime) if not step.reference
    ]
    recipe = Recipe(batch_size=options.batch, drop_path=0.1)
    rows: list[dict[str, Any]] = []
    for step in chosen:
        architecture = PAPER.architecture(step, regime, 10)
        work = Work(architecture, recipe, options.resolution, options.precision, device)
        choice, _ = choose(work, 10**6 // options.batch, may_compile=False)
        steps = {str(each): partial(_step, work, each) for each in dict.fromkeys([*fixed, choice])}
        rates = interleaved(steps, options.batch, options.rounds, options.seconds)
        median = {name: rate["median"] for name, rate in rates.items()}
        own = median[str(choice)]
        rows.append(
            {
                "step": step.name,
                "choice": str(choice),
                "of_best": round(own / max(median.values()), 3),
                "of_default": round(own / median[default], 3),
                "images_per_second": rates,
            }
        )
        print({**rows[-1], "images_per_second": own}, flush=True)

    def seconds(row: dict[str, Any], name: str) -> float:
        return float(1 / row["images_per_second"][name]["median"])

    single = min(sum(seconds(row, str(each)) for row in rows) for each in fixed)
    summary = {
        "worst_of_best": min(row["of_best"] for row in rows),
        "median_of_default": statistics.median(row["of_default"] for row in rows),
        "of_best_single": single / sum(seconds(row, row["choice"]) for row in rows),
    }
    print(f"{summary} (goals: 0.97 in the worst row, 1.3 times torch's defaults)")
    size = f"{options.regime}-{options.resolution}-{options.batch}"
    path = RESULTS / f"layouts-{size}-{options.precision}-{device.type}.json"
    about = {"options": vars(options), "default": default}
    write(path, device, {**about, "summary": summary, "rows": rows})


if __name__ == "__main__":
    main()
