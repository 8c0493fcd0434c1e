"""A run of a simulated world scored on years that nobody has seen: another seed of its world, best
drawn after the code was frozen.

python benchmarks/fresh_years.py RUN --seed 91 [--years 5] [--starts 240] [--lead 5d] --out FOLDER

Writes FOLDER/run (RUN on those years), forecast.zarr, perfect.zarr and report/; prints the numbers
of the calibration bars, with their 95 % intervals where they are missed. Baselines are fitted on
training years of the same seed, as many as are left of the card's.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

from sciladm import recipe as recipes
from sciladm.data.cards import load_card
from sciladm.data.dataset import open_dataset

DAYS = (1, 3, 5)
REGIONS = ("tropics", "nh", "sh", "land", "sea")
LEAST, MOST, DEGREE = 0.9, 1.1, 16


def elsewhere(run: Path, seed: int, years: int, out: Path) -> Path:
    """A copy of ``run`` on a world of another ``seed``, ``years`` of it test years."""
    here, told = out / "run", out / "card.yaml"
    recipe = recipes.load(run / "recipe.yaml")
    facts = json.loads((run / "facts.json").read_text())
    asked = {"model": facts["model_hash"], "seed": seed, "years": years}
    if here.exists():
        if json.loads((out / "asked.json").read_text()) != asked:
            sys.exit(f"{out} holds another run, seed or number of years: give another --out")
        return here
    (out / "asked.json").write_text(json.dumps(asked))
    card = yaml.safe_load(load_card(recipe.data.card)[1].read_text())
    (own,) = (source for source in card["sources"] if source["name"] == facts["source"])
    whole = own["plan"]["train"] + own["plan"]["test"]
    if not 0 < years < whole:
        sys.exit(f"--years {years}: the card has {whole} years to share among train and test")
    own["plan"] |= {"train": whole - years, "test": years, "seed": seed}
    told.write_text(yaml.safe_dump(card | {"sources": [own]}, sort_keys=False))
    moved = recipes.parse(recipe.tree(), {"data.card": str(told.resolve())}, "RUN")
    facts["data_fingerprint"] = open_dataset(moved, facts["source"]).fingerprint
    new = out / "run.partial"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(run, new, ignore=shutil.ignore_patterns("test_reads*"))
    (new / "recipe.yaml").write_text(moved.text())
    (new / "facts.json").write_text(json.dumps(facts, indent=2))
    return new.rename(here)


def ask(door: str, *words: object) -> None:
    """One of the commands, which says its own errors."""
    done = subprocess.run([sys.executable, "-m", f"sciladm.{door}", *map(str, words)])
    if done.returncode:
        sys.exit(done.returncode)


def summary(report: Path, headline: list[str]) -> None:
    """Prints CRPS and share of skill, spread–skill by region and members' spectra."""
    scores, spectra = (pd.read_csv(report / f"{name}.csv") for name in ("scores", "spectra"))
    scores = scores[scores.season == "all"]
    hours = [24 * day for day in DAYS]
    whole = scores[(scores.variable == "all") & (scores.region == "global")]
    whole = whole[whole.lead_hours.isin(hours)]
    whole = whole[whole.metric.isin(["fair_crps", "share_of_skill"])]
    print(whole.pivot_table("value", ["metric", "forecast"], "lead_hours").round(4).to_string())
    spectra = spectra.rename(columns={"ratio": "value"})
    spectra = spectra[(spectra.wavenumber >= 1) & (spectra.wavenumber <= DEGREE)]
    asked = [(f"spread-skill, {region}", scores[(scores.metric == "spread_skill")
              & (scores.region == region)]) for region in REGIONS]  # fmt: skip
    for name, table in [*asked, (f"spectra to degree {DEGREE}", spectra)]:
        for forecast in ("model", "perfect"):
            one = table[(table.forecast == forecast) & table.variable.isin(headline)]
            one = one[one.lead_hours.isin(hours)]
            if one.empty:
                sys.exit(f"{name}: the report has none at days {DAYS}")
            off = one[~one.value.between(LEAST, MOST)]
            sure = ((off.high < LEAST) | (off.low > MOST)).sum()
            said = "no intervals" if off.low.isna().any() else f"{sure} surely not"
            print(f"{name}, {forecast}: {len(one) - len(off)} of {len(one)} within {LEAST}–{MOST} "
                  f"({one.value.min():.3f}–{one.value.max():.3f}), {said}")  # fmt: skip
            columns = [c for c in ("variable", "wavenumber", "lead_hours", "value", "low", "high")
                       if c in off]  # fmt: skip
            if forecast == "model" and len(off):
                print(off[columns].round(3).to_string(index=False))


def main() -> None:
    """Simulate, forecast, score, print; what is there already is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--years", type=int, default=5)
    parser.add_argument("--starts", type=int, default=240)
    parser.add_argument("--lead", default="5d")
    parser.add_argument("--out", type=Path, required=True)
    told = parser.parse_args()
    told.out.mkdir(parents=True, exist_ok=True)
    run = elsewhere(told.run, told.seed, told.years, told.out)
    stores = [told.out / f"{name}.zarr" for name in ("forecast", "perfect")]
    for door, store in zip(("forecast", "simulate"), stores, strict=True):
        asked = "--init", f"test:0:{told.starts}", "--lead", told.lead, "--members", 16
        ask(door, run, *asked, "--out", store)
    report = told.out / "report"
    ask("evaluate", *stores, "--run", run, "--out", report, "--overwrite")
    summary(report, recipes.load(run / "recipe.yaml").evaluation.headline)


if __name__ == "__main__":
    main()
