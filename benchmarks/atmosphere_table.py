"""Is the simulated atmosphere a fair world? Prints the table of docs/simulated-atmosphere.md (some
minutes on one core).

python benchmarks/atmosphere_table.py [flow.stirring=1.2 ground.noise_land=1 ...] [--starts 24]
[--members 16]
"""

import argparse
from dataclasses import replace

import numpy as np

from sciladm.simulate import Atmosphere
from sciladm.simulate.atmosphere import BLOCK
from sciladm.simulate.weather import BEGIN, PERFECT, TRUTH, Noise, State

HEADLINE = {"z500": 1, "t850": 5, "u850": 8, "v850": 11, "t2m": 12, "msl": 15}
LEADS = (1, 3, 5, 10)  # [days]
RANGES = {
    "z500 anomaly sd [m² s⁻²]": (700, 1000),
    "persistence rmse/sd, 1 d": (0.5, 0.7),
    "persistence rmse/sd, 3 d": (1.0, 1.3),
    "small-error doubling [d]": (1.5, 3.5),
    "kinetic-energy slope, degrees 8-20": (-3.3, -2.7),
    "perfect / climatology fair CRPS, 1 d": (0.0, 0.10),
    "perfect / climatology fair CRPS, 5 d": (0.30, 0.50),
    "perfect / climatology fair CRPS, 10 d": (0.70, 0.90),
    "perfect spread-skill, 1 d": (0.97, 1.03),
    "perfect spread-skill, 5 d": (0.97, 1.03),
    "perfect spread-skill, 10 d": (0.97, 1.03),
}


def climate(weather, batch, days, spin_up):
    """Daily 00 h records (batch, day, channel, ...), spectral states every 8th day, largest
    |u|.
    """
    hours = np.zeros(batch, np.int64) - 24 * spin_up
    who = tuple(10_000 + i for i in range(batch))
    noise, state = Noise(TRUTH, 1, who), weather.begin(hours, Noise(BEGIN, 1, who))
    frames, states, fastest = [], [], 0.0
    for day in range(-spin_up, days):
        if day >= 0:
            fields = weather.write(state)
            fastest = max(fastest, float(np.abs(fields[:, 6:9]).max()))
            frames.append(fields[:, list(HEADLINE.values())])
            if day % 8 == 0:
                states.append((day, state))
        for _ in range(4):
            state = weather.advance(state, noise)
    return np.stack(frames, axis=1), states, fastest


def anomalies(records):
    """Departures from the mean over realisations of a fit to the year (two harmonics)."""
    days = np.arange(records.shape[1])
    angle = 2 * np.pi * days / 365.2425
    basis = np.stack(
        [np.ones_like(angle), *(f(k * angle) for k in (1, 2) for f in (np.cos, np.sin))]
    )
    mean = records.mean(axis=0)
    coefficients = np.linalg.lstsq(basis.T, mean.reshape(days.size, -1), rcond=None)[0]
    return records - (basis.T @ coefficients).reshape(mean.shape).astype(np.float32)


def doubling(weather, states, z500_sd):
    """Days to double of a small difference between twins under the same noise, after ten days of
    sorting itself out.
    """
    rates = []
    for _, state in states:
        batch = state.hours.size
        who = tuple(range(batch))
        kick = (
            Noise(BEGIN, 7, who)
            .draw(state.hours, (*state.psi.shape[:3], 2))
            .astype(state.psi.real.dtype)
        )
        difference = 3e3 * np.moveaxis(kick[..., 0] + 1j * kick[..., 1], 0, -1) * (state.psi != 0)
        twin = State((state.psi + difference).astype(state.psi.dtype), state.slab, state.hours)
        sizes = []
        for step in range(4 * 20):
            noise = Noise(TRUTH, 5, who)
            state, twin = weather.advance(state, noise), weather.advance(twin, noise)
            if step >= 39:
                error = (weather.write(state) - weather.write(twin))[:, 1]
                sizes.append(np.sqrt((error**2 * weights(weather)).sum((1, 2))))
        sizes = np.array(sizes)
        for one in sizes.T:
            small = one < 0.25 * z500_sd
            if small.sum() > 12:
                rates.append(
                    np.polyfit(np.arange(small.sum()) / 4, np.log2(one[: small.sum()]), 1)[0]
                )
    return 1 / np.mean(rates)


def weights(weather):
    """Cell areas over their sum, (latitude, longitude)."""
    lines = np.cos(np.deg2rad(weather.channels.latitude))[:, None] * np.ones(
        weather.channels.longitude.size
    )
    return lines / lines.sum()


def energy_slope(weather, states):
    """Exponent of kinetic energy per degree over 8-20 (or to the truncation), the three levels
    together.
    """
    n = np.arange(weather.model.flow.truncation + 1)
    power = sum((np.abs(s.psi) ** 2).sum(axis=(0, 1, 3)) * n * (n + 1) for _, s in states)
    band = (n >= 8) & (n <= min(20, n[-1] - 1))
    return np.polyfit(np.log(n[band]), np.log(power[band]), 1)[0]


def fair_crps(members, truth):
    """(member, ...) against (...): mean |x - y| - mean over pairs |x - x'| / 2, fair."""
    count = members.shape[0]
    ordered = np.sort(members, axis=0)
    rank = (2 * np.arange(1, count + 1) - count - 1).reshape(-1, *[1] * truth.ndim)
    return np.abs(members - truth).mean(axis=0) - (rank * ordered).sum(axis=0) / (
        count * (count - 1)
    )


def perfect(weather, records, anomaly, states, members, starts):
    """Perfect-model ensemble against a truth of its own: sums per lead of CRPS, climatology's,
    spread², error², ranks.
    """
    area, rows = weights(weather), list(HEADLINE.values())
    batch, last = records.shape[0], records.shape[1]
    chosen = [(d, s) for d, s in states if 24 <= d < last - 24]
    picks = np.linspace(0, len(chosen) - 1, starts).round().astype(int)
    out = {
        k: np.zeros((len(LEADS), len(rows))) for k in ("crps", "climatology", "spread", "error")
    }
    ranks = np.zeros((len(LEADS), members + 1))
    blocks = -(-(members + 1) // BLOCK)
    for count, pick in enumerate(picks):
        day, state = chosen[pick]
        one = count % batch
        parts = []
        for b in range(blocks):
            repeated = State(
                np.repeat(state.psi[..., one : one + 1], BLOCK, -1),
                np.repeat(state.slab[..., one : one + 1], BLOCK, -1),
                np.repeat(state.hours[one : one + 1], BLOCK),
            )
            noise = Noise(PERFECT, count, tuple(range(b * BLOCK, (b + 1) * BLOCK)))
            parts.append(
                weather.forecast(repeated, noise, [4 * lead for lead in LEADS])[:, :, rows]
            )
        everyone = np.concatenate(parts).astype(np.float64)
        truth, ensemble = everyone[0], everyone[1 : members + 1]
        for i, lead in enumerate(LEADS):
            others = np.delete(anomaly, one, axis=0)[
                :, [day + lead + s for s in (-10, -5, 0, 5, 10)]
            ]
            season = records[0, day + lead] - anomaly[0, day + lead]
            climatology = season + others.reshape(-1, *season.shape)
            out["crps"][i] += (fair_crps(ensemble[:, i], truth[i]) * area).sum((1, 2))
            out["climatology"][i] += (fair_crps(climatology, truth[i]) * area).sum((1, 2))
            out["spread"][i] += (ensemble[:, i].var(axis=0, ddof=1) * area).sum((1, 2))
            out["error"][i] += ((ensemble[:, i].mean(axis=0) - truth[i]) ** 2 * area).sum((1, 2))
            rank = (ensemble[:, i, 0] < truth[i, 0]).sum(axis=0)
            ranks[i] += np.bincount(
                rank.ravel(), np.broadcast_to(area, rank.shape).ravel(), members + 1
            )
    out["ranks"] = ranks / ranks.sum(axis=1, keepdims=True) * (members + 1)
    return out


def measure(world, batch, days, spin_up, starts, members):
    """Every number of the table."""
    weather = world.on(32, 64)
    records, states, fastest = climate(weather, batch, days, spin_up)
    area = weights(weather)
    anomaly = anomalies(records)
    variance = (anomaly**2).mean(axis=(0, 1))
    sd = np.sqrt((variance * area).sum((1, 2)))
    band = (np.abs(weather.channels.latitude) > 20)[:, None] * area
    extratropics = np.sqrt((variance[0] * band).sum() / band.sum())

    def persistence(lead):
        change = (anomaly[:, lead:] - anomaly[:, :-lead]) ** 2
        return np.sqrt((change.mean(axis=(0, 1)) * area).sum((1, 2))) / sd

    table = {"z500 anomaly sd [m² s⁻²]": sd[0]}
    table["persistence rmse/sd, 1 d"], table["persistence rmse/sd, 3 d"] = (
        persistence(1)[0],
        persistence(3)[0],
    )
    table["small-error doubling [d]"] = doubling(weather, states[5::15], sd[0])
    table["kinetic-energy slope, degrees 8-20"] = energy_slope(weather, states)
    scores = perfect(weather, records, anomaly, states, members, starts)
    ratio = scores["crps"] / scores["climatology"]
    skill = np.sqrt((members + 1) / members * scores["spread"] / scores["error"])
    for i, lead in ((0, 1), (2, 5), (3, 10)):
        table[f"perfect / climatology fair CRPS, {lead} d"] = ratio[i].mean()
        table[f"perfect spread-skill, {lead} d"] = np.sqrt((skill[i] ** 2).mean())
    more = {"extratropics (|φ| > 20°) z500 sd": extratropics, "largest |u|": fastest}
    return table, more, sd, persistence, ratio, skill, scores["ranks"]


def show(result):
    """Markdown."""
    table, more, sd, persistence, ratio, skill, ranks = result
    print("| quantity | range | measured | verdict |\n|---|---|---|---|")
    for name, (low, high) in RANGES.items():
        verdict = "in" if low <= table[name] <= high else "**out**"
        print(f"| {name} | {low} to {high} | {table[name]:.3g} | {verdict} |")
    print("\n" + "; ".join(f"{k} {v:.0f}" for k, v in more.items()))
    columns = " | ".join(f"CRPS ratio {d} d" for d in LEADS)
    print(f"\n| variable | sd | persistence 1, 3, 5 d | {columns} | spread-skill 1, 5, 10 d |")
    print("|---" * (len(LEADS) + 4) + "|")
    for i, name in enumerate(HEADLINE):
        past = " ".join(f"{persistence(d)[i]:.2f}" for d in (1, 3, 5))
        cells = " | ".join(f"{r[i]:.3f}" for r in ratio)
        calibration = " ".join(f"{skill[lead, i]:.2f}" for lead in (0, 2, 3))
        print(f"| {name} | {sd[i]:.4g} | {past} | {cells} | {calibration} |")
    print(
        "\nRank histogram of z500, share × bins: "
        + "; ".join(
            f"{d} d: " + " ".join(f"{r:.2f}" for r in row)
            for d, row in zip(LEADS, ranks, strict=True)
        )
    )


def main():
    """Read overrides, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="flow.NAME=VALUE or ground.NAME=VALUE")
    for name, default in (
        ("batch", 8),
        ("days", 365),
        ("spin-up", 60),
        ("starts", 24),
        ("members", 15),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    world = Atmosphere()
    for text in given.overrides:
        place, value = text.split("=")
        part, name = place.split(".")
        kind = type(getattr(getattr(world, part), name))
        world = replace(world, **{part: replace(getattr(world, part), **{name: kind(value)})})
    print(", ".join(given.overrides) or "default parameters", "\n")
    show(measure(world, given.batch, given.days, given.spin_up, given.starts, given.members))


if __name__ == "__main__":
    main()
