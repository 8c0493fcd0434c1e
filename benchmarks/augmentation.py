"""What of training states their copies replace, in all and at each scale.

    python benchmarks/augmentation.py RUN --states 60 --strengths 0.1 0.4 0.8 1

1 − c², c the anomaly correlation of copies with originals: over all cells and states; a mean of
squares over single fields beside it; of each wavenumber; and copies' variance over originals'.
"""  # fmt: skip

import argparse

import numpy as np
import torch

import sciladm
from sciladm.conventions import UserError
from sciladm.metrics.spectrum import spectrum_for
from sciladm.tasks.augment import training

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("run")
parser.add_argument("--states", type=int, default=60)
parser.add_argument(
    "--strengths", type=float, nargs="+", default=[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1]
)
asked = parser.parse_args()
torch.set_num_threads(1)
trained = sciladm.load(asked.run)
model, data = trained.model, training(trained.model)
window, train = model.recipe.window, data.indices("train")
length = window.past + window.future
first = np.linspace(0, len(train) - length, asked.states // window.future).astype(int)
ds = data.frames.ds.isel(time=np.unique(train[first[:, None] + np.arange(length)])).load()
spectrum, valid = spectrum_for(model.fields.grid), model.normaliser.valid


def anomalies(ds):
    """(time, channel, *space), in standard deviations, 0 on land."""
    states = model.fields.to_array(ds, gaps=True)
    return np.where(valid, model.normaliser.normalise(states, ds.time.values), 0)


print("asked   all   per field   variance   by wavenumber", *spectrum.wavenumbers[:24].round(2))
for strength in asked.strengths:
    try:
        copies = trained.augment(ds, 8, strength)
    except UserError as error:
        print(f"{strength:5.2f}   {error}")
        continue
    a = anomalies(ds.sel(time=copies.time))
    pairs = [(a, anomalies(copies.isel(member=m))) for m in range(8)]
    area = tuple(range(-len(model.fields.grid.shape), 0))
    sums = np.array(
        [
            [(x * y * model.fields.grid.area).sum(area) for x, y in ((a, b), (a, a), (b, b))]
            for a, b in pairs
        ]
    )  # (member, which, time, channel)
    ab, aa, bb = np.moveaxis(sums, 1, 0)
    total = 1 - ab.sum() ** 2 / (aa.sum() * bb.sum())
    power = np.array([[spectrum(x).mean((0, 1)) for x in (a + b, a - b, a, b)] for a, b in pairs])
    plus, minus, own, drawn = power.mean(0)
    shares = 1 - (plus - minus) ** 2 / 16 / (own * drawn)
    print(
        f"{strength:5.2f} {total:6.3f} {1 - np.mean(ab**2 / (aa * bb)):8.3f} "
        f"{bb.sum() / aa.sum():11.3f}      ",
        *(f"{x:.2f}" for x in shares[:24]),
    )
