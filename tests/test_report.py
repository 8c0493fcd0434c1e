"""The report: what it says, that losing is said, that it needs nothing and repeats itself."""

import io
import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from sciladm.conventions import UserError
from sciladm.grid import Grid
from sciladm.metrics import tables
from sciladm.metrics.regions import regions
from sciladm.metrics.scorer import Scorer
from sciladm.metrics.spectrum import spectrum_for
from sciladm.report import MapPanel, draw_samples, print_table, write_report
from sciladm.report.results import Results
from sciladm.report.style import few, lead, leads, number, tenth
from sciladm.report.verdicts import sentences

HEADLINE = ["geopotential_500", "temperature_850", "2m_temperature", "u_component_of_wind_850"]
UNITS = dict(zip(HEADLINE, ["m² s⁻²", "K", "K", "m s⁻¹"], strict=True))
LEADS = [24.0, 48.0, 72.0, 120.0, 240.0]
SIZE = dict(zip(HEADLINE, [450.0, 2.1, 1.7, 3.9], strict=True)) | {"all": 0.56}
# Error growth: (at day 0, at infinity, days); in units of climatology's fair CRPS.
GROWTH = {
    "model": (0.20, 1.0, 4.2), "climatology": (1, 1, 1), "persistence": (0.45, 1.35, 2.0),
    "damped_persistence": (0.45, 1.02, 2.0), "linear_inverse_model": (0.36, 1.0, 3.0),
    "dressed_regression": (0.22, 1.02, 4.0), "perfect": (0.02, 1.0, 7.0),
    "autoencoder": (0.11, 0.11, 1.0),
}  # fmt: skip
REGIONS = ["global", "tropics", "nh", "sh", "land", "sea"]


def grown(forecast, hours, worse=1.0):
    start, end, days = GROWTH[forecast]
    return worse * (end - (end - start) * np.exp(-hours / 24 / days))


def a_scores():
    rows = []
    for forecast in GROWTH:
        for k, variable in enumerate(["all", *HEADLINE]):
            for hours in LEADS:
                share = grown(forecast, hours, 1 + 0.04 * k * (forecast == "model"))
                for r, region in enumerate(REGIONS):
                    value = SIZE[variable] * share * (1 + 0.03 * r)
                    scale = 0.97 + 0.02 * (r - 2) + 0.03 * (k - 2) + 0.0003 * hours
                    values = {"fair_crps": value, "rmse": 1.8 * value, "spread_skill": scale}
                    for metric, x in values.items():
                        rows.append(
                            (forecast, variable, region, "all", hours, metric, x, 0.03 * x)
                        )
                for season, f in {"djf": 1.1, "mam": 1.0, "jja": 0.9, "son": 1.02}.items():
                    x = SIZE[variable] * (share if forecast != "climatology" else 1) * f
                    row = (forecast, variable, "global", season, hours, "fair_crps", x, 0.05 * x)
                    rows.append(row)
    for hours in LEADS:
        top, mine, best = (grown(f, hours) for f in ("climatology", "model", "perfect"))
        x = (top - mine) / (top - best)
        rows.append(("model", "all", "global", "all", hours, "share_of_skill", x, 0.02))
    columns = ["forecast", "variable", "region", "season", "lead_hours", "metric", "value", "wide"]
    table = pd.DataFrame(rows, columns=columns)
    wide = table.pop("wide")
    table["low"], table["high"] = table["value"] - wide, table["value"] + wide
    return table.assign(n_init=120, n_members=16)


def a_comparisons(verdict=None):
    rows = []
    for reference in GROWTH:
        if reference in ("model", "autoencoder"):
            continue
        for k, variable in enumerate(["all", *HEADLINE]):
            for hours in LEADS:
                score = SIZE[variable] * grown(reference, hours)
                mine = SIZE[variable] * grown("model", hours, 1 + 0.04 * k)
                d, wide = mine - score, 0.012 * score
                said = "better" if d + wide < 0 else "worse" if d - wide > 0 else "unclear"
                said = verdict or said
                wide = np.nan if said == "too few" else wide
                limits = (d, d - wide, d + wide, score, said)
                rows.append(("model", reference, variable, "global", hours, "fair_crps", *limits))
    columns = "forecast reference variable region lead_hours metric difference low high score"
    return pd.DataFrame(rows, columns=[*columns.split(), "verdict"]).assign(n_init=120)


def a_ranks():
    generator, rows = np.random.default_rng(0), []
    for forecast, bend in {"model": 0.25, "perfect": 0.0, "climatology": 0.1}.items():
        for variable in HEADLINE:
            for hours in LEADS:
                shape = 1 + bend * ((np.arange(17) - 8) / 8) ** 2 * 2 - bend * 0.6
                shape = shape * generator.normal(1, 0.03, 17)
                for rank, x in enumerate(shape / shape.mean()):
                    rows.append((forecast, variable, "global", hours, rank, x))
    columns = ["forecast", "variable", "region", "lead_hours", "rank", "frequency"]
    return pd.DataFrame(rows, columns=columns).assign(n_init=120, n_members=16)


def a_spectra():
    rows = []
    for forecast, loss in {"model": 0.1, "perfect": 0.0}.items():
        for variable in HEADLINE:
            for hours in LEADS:
                for k in range(33):
                    truth = 1e4 * (1.0 + k) ** -3
                    ratio = 1 - loss * (k / 16) ** 2 * (1 - hours / 600) + 0.02 * np.sin(k)
                    powers = (truth * ratio, truth, ratio, ratio * 0.97, ratio * 1.03)
                    rows.append((forecast, variable, hours, k, *powers, k > 16))
    columns = "forecast variable lead_hours wavenumber power power_truth ratio low high aliased"
    return pd.DataFrame(rows, columns=columns.split()).assign(n_init=120, n_members=16)


def waves(seed, size=1.0):
    generator = np.random.default_rng(seed)
    latitude, longitude = np.linspace(-87.2, 87.2, 32), np.arange(64) * 5.625
    field = np.zeros((32, 64))
    for k in range(1, 9):
        phase = generator.uniform(0, 2 * np.pi)
        tilt = generator.normal(0, 1.5)
        wave = np.cos(
            np.deg2rad(k * longitude)[None] + phase + tilt * np.deg2rad(latitude)[:, None]
        )
        field += wave * generator.normal(0, 1) / k**0.8 * np.cos(np.deg2rad(latitude))[:, None]
    return latitude, longitude, size * field


def a_panel(title="geopotential 500, day 3 from 2245-01-03 00 h"):
    latitude, longitude, truth = waves(1, 700)
    truth = truth + 52000 + 3500 * np.cos(np.deg2rad(2 * latitude))[:, None]
    members = [truth + waves(k, 220)[2] for k in (2, 3, 4, 5)]
    mean, spread = np.mean(members, 0), np.std(members, 0, ddof=1)
    fields = [
        ("truth", truth), ("ensemble mean", mean), ("spread", spread),
        ("error of the mean", mean - truth), ("member 0", members[0]), ("member 1", members[1]),
        ("member 2", members[2]),
    ]  # fmt: skip
    land = (waves(9)[2] > 0.4).astype(float)
    return MapPanel(title, "m² s⁻²", latitude, longitude, fields, land)


def write(out, **changes):
    arguments = {
        "scores": a_scores(), "ranks": a_ranks(), "spectra": a_spectra(),
        "comparisons": a_comparisons(), "panels": [a_panel()],
        "provenance": {
            "source": "simulated", "data fingerprint": "4f1c9be0a2d37755", "seed": 0,
            "versions": {"sciladm": "0.1.0", "torch": "2.13.0"}, "test_reads": 3,
            "recipe": "schema: 1\nname: era5\ndata: <script>alert(1)</script>\n",
        },
        "notes": ["Persistence is dressed with validation errors."],
        "headline": HEADLINE, "units": UNITS,
    } | changes  # fmt: skip
    write_report(out, **arguments)
    return (out / "index.html").read_text(encoding="utf-8")


def write_little(out, **changes):
    """A quick report: one variable, no pictures but one."""
    none, scores = pd.DataFrame(), a_scores()
    tables = {"scores": scores[scores["variable"] == HEADLINE[0]], "ranks": none, "spectra": none}
    return write(out, **tables | {"panels": [], "headline": HEADLINE[:1]} | changes)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "new" / "folder"
    return out, write(out, headline=HEADLINE[:2])


def test_needs_nothing_else(page):
    _, html = page
    links = re.findall(r"""(?:src|href)=["']([^"']*)""", html)
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "url(http" not in html and "@import" not in html
    assert "<script" not in html and "&lt;script&gt;" in html
    assert html.count("<svg") == 4 + 1
    ids = re.findall(r' id="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]*)\)", html)) <= set(ids)


def test_same_input_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_little(tmp_path / name, ranks=a_ranks(), spectra=a_spectra(), panels=[a_panel()])
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_tables_are_written_whole(page):
    out, _ = page
    names = [".sciladm-report", "comparisons.csv", "index.html", "ranks.csv", "scores.csv"]
    assert sorted(file.name for file in out.iterdir()) == [*names, "spectra.csv"]
    pd.testing.assert_frame_equal(
        pd.read_csv(out / "scores.csv"), a_scores(), rtol=1e-6, check_dtype=False
    )


def test_every_part_is_there(page):
    _, html = page
    for part in (
        "Simulated data: no score here is on ERA5", "Score card", "Error by lead",
        "Spread over error", "Rank of the truth", "Scales", "Maps", "The autoencoder alone",
        "All scores", "Provenance", "4f1c9be0a2d37755", "test split read 3 times", "16 members",
        "120 initial times", "northern extratropics", "Dec–Feb", "dressed with validation errors",
    ):  # fmt: skip
        assert part in html


def test_the_banner_is_for_simulated_data_alone(tmp_path):
    html = write_little(tmp_path / "r", provenance={"source": "weatherbench2"})
    assert "Simulated data" not in html


def found(comparisons, scores=None, spectra=None):
    empty = pd.DataFrame()
    scores, spectra = (
        (a_scores() if scores is None else scores),
        (empty if spectra is None else spectra),
    )
    return sentences(Results.of([scores, empty, spectra, comparisons], HEADLINE, UNITS))


def test_wins_and_losses_are_said_in_plain_words():
    said = {s.text: s for s in found(a_comparisons())}
    won = said["the model beats climatology at days 1–3, 5, 10."]
    assert won.tone == "good" and "day 1 −63.1 % [−64.3, −61.9]" in won.figures
    lost = next(s for s in said.values() if s.text.startswith("2 m temperature"))
    assert lost.tone == "bad" and "climatology beats the model at day 10" in lost.text
    assert not any("earned nothing" in text for text in said)
    table = a_comparisons()
    table.loc[(table["reference"] == "climatology") & (table["lead_hours"] > 200), "verdict"] = (
        "worse"
    )
    said = {s.text: s.tone for s in found(table)}
    assert said["climatology beats the model at day 10."] == "bad"
    assert said["the model beats climatology at days 1–3, 5."] == "good"


def test_losses_beside_the_headline_are_said_too():
    table, scores = a_comparisons(), a_scores()
    one = table[(table["variable"] == HEADLINE[0]) & (table["reference"] == "climatology")]
    other = one.assign(variable="temperature_200", verdict="worse")
    place = one.assign(region="tropics", verdict=["worse", *["better"] * (len(one) - 1)])
    more = scores[scores["variable"] == HEADLINE[0]].assign(variable="temperature_200")
    said = {s.text: s for s in found(pd.concat([table, other, place]), pd.concat([scores, more]))}
    assert said["temperature 200: climatology beats the model at days 1–3, 5, 10."].tone == "bad"
    lost = next(s for s in said.values() if s.text.startswith("By region climatology"))
    assert f"in 1 of {len(one)} cases" in lost.text
    assert lost.figures == "geopotential 500, tropics, day 1"


def test_scales_are_counted():
    rows = [(name, k, ratio, aliased, forecast) for name, k, ratio, aliased, forecast in (
        (HEADLINE[0], 0, 3.0, False, "model"), (HEADLINE[0], 1, 0.95, False, "model"),
        (HEADLINE[0], 2, 1.2, False, "model"), (HEADLINE[0], 3, 9.0, True, "model"),
        ("temperature_200", 1, 0.8, False, "model"), (HEADLINE[0], 1, 5.0, False, "climatology"),
    )]  # fmt: skip
    names = ["variable", "wavenumber", "ratio", "aliased", "forecast"]
    spectra = pd.DataFrame(rows, columns=names).assign(lead_hours=24)
    (said,) = (s for s in found(a_comparisons(), spectra=spectra) if "variance" in s.text)
    assert (
        said.figures
        == "headline variables: 1 of 2 (0.950 to 1.20); the others: 0 of 1 (0.800 to 0.800)"
    )


def test_diffusion_that_does_not_beat_the_dressed_regression_earned_nothing():
    table = a_comparisons()
    table.loc[table["reference"] == "dressed_regression", "verdict"] = "no worse"
    said = {s.text: s.tone for s in found(table)}
    earned = next(text for text in said if "earned nothing" in text)
    assert said[earned] == "bad" and "days 1–3, 5, 10" in earned


def test_too_few_cases_give_no_verdict():
    said = [s for s in found(a_comparisons("too few")) if "climatology" in s.text]
    assert said[0].text.startswith("Too few independent initial times")
    assert said[0].tone == "plain" and "[" not in said[0].figures
    assert not any("beats" in s.text for s in found(a_comparisons("too few")))


def test_too_few_cases_are_no_failure_of_diffusion():
    rows = a_comparisons("unclear")
    late = rows["lead_hours"] > 48
    rows.loc[late, ["low", "high"]], rows.loc[late, "verdict"] = np.nan, "too few"
    said = [s for s in found(rows) if "diffusion earned" in s.text.lower()]
    assert [s.tone for s in said] == ["bad", "plain"]
    assert "days 1–2:" in said[0].text and "days 3, 5, 10" in said[1].text
    assert "Too few independent initial times" in said[1].text


def test_calibration_names_the_worst():
    scores = a_scores()
    worst = (scores["metric"] == "spread_skill") & (scores["variable"] == HEADLINE[0])
    worst &= (scores["region"] == "nh") & (scores["lead_hours"] == 72)
    scores.loc[worst & (scores["forecast"] == "model"), "value"] = 0.4
    said = next(s for s in found(a_comparisons(), scores) if s.text.startswith("Spread"))
    assert "geopotential 500, northern extratropics, day 3: 0.400, under" in said.figures


def test_perfect_members_are_no_competitor():
    assert not any("perfect beats" in s.text for s in found(a_comparisons()))


def test_only_our_folder_is_written_to(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="not a report"):
        write_little(theirs)
    assert [p.name for p in theirs.iterdir()] == ["thesis.tex"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        write_little(tmp_path / "file")
    ours = tmp_path / "ours"
    ours.mkdir()
    write_little(ours)
    (ours / "mine.txt").write_text("kept")
    assert "Notes" not in write_little(ours, notes=[])
    assert (ours / "mine.txt").exists()


def test_little_is_enough(tmp_path):
    """Fills have no lead; baselines, ranks, spectra and maps may be absent."""
    scores = a_scores()
    scores = scores[(scores["forecast"] == "model") & (scores["lead_hours"] == 24)]
    scores = scores.assign(lead_hours=np.nan, low=np.nan, high=np.nan)
    none = pd.DataFrame()
    html = write(
        tmp_path / "r", scores=scores, ranks=none, spectra=none, comparisons=none, panels=[],
        headline=None, units=None, provenance={}, notes=[],
    )  # fmt: skip
    assert "no skill to show" in html and "<th>fill</th>" in html


def test_table_in_the_terminal():
    out = io.StringIO()
    print_table(a_scores(), HEADLINE, Console(file=out, width=140))
    lines = out.getvalue().splitlines()
    assert "day 10" in lines[1]
    assert any("geopotential 500" in x and "model" in x and "173" in x for x in lines)
    assert sum("spread–skill" in x for x in lines) == 5
    assert "\x1b" not in out.getvalue()


def test_samples_are_one_picture_of_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        draw_samples(tmp_path / "samples" / f"{name}.png", "step 100", [a_panel()])
    data = (tmp_path / "samples" / "a.png").read_bytes()
    assert data.startswith(b"\x89PNG") and data == (tmp_path / "samples" / "b.png").read_bytes()


def test_words():
    assert (lead(24), lead(36), lead(-1)) == ("day 1", "36 h", "fill")
    assert leads([24, 48, 72, 120]) == "days 1–3, 5"
    assert leads([6, 12]) == "6 h, 12 h"
    assert [number(x) for x in (0.0123, 1.5, 432.1, 5e7, np.nan, 0, -2)] == [
        "0.0123", "1.50", "432", "5.00e+07", "", "0", "−2.00",
    ]  # fmt: skip
    assert number(0.99996) == "1.00"
    assert few([24.0 * k for k in range(1, 16)]) == [24, 96, 192, 264, 360]
    assert few([24.0], 3) == [24]
    assert (tenth(-0.04), tenth(-12.34)) == ("0.0", "−12.3")


def test_takes_what_the_scorer_makes(tmp_path):
    """The columns of `sciladm.metrics.tables`, from real scores of Gaussian fields."""
    grid = Grid.from_coords(
        {"latitude": np.linspace(-84.375, 84.375, 16), "longitude": np.arange(32) * 11.25}
    )
    scorer = Scorer(
        HEADLINE[:2], regions(grid), grid.area, np.ones(2), [24, 48], HEADLINE[:2],
        spectrum=spectrum_for(grid),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for day in range(4):
        init = np.datetime64("2201-01-01") + 40 * day
        for step in range(2):
            truth = rng.normal(size=(2, *grid.shape)).astype(np.float32)
            for name in ("model", "climatology", "perfect"):
                members = rng.normal(size=(4, 2, *grid.shape)).astype(np.float32)
                scorer.add(name, init, step, members, truth)
    paired = tables.paired_table(scorer, "model", "climatology", resamples=10)
    write_report(
        tmp_path / "r", tables.score_table(scorer, 10), tables.rank_table(scorer),
        tables.spectrum_table(scorer, 10), paired, [], {"source": "simulated"},
    )  # fmt: skip
    html = (tmp_path / "r" / "index.html").read_text(encoding="utf-8")
    assert "Too few independent initial times" in html
    assert html.count("<svg") == 4
