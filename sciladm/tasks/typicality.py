"""How much a state is like those of the validation split, in every way that a run can tell.

Likelihood alone calls a blurred field typical: it lies nearer to the middle of everything. So a
state is asked many questions whose answers have a usual range with two ends, and the answers are
looked at together.
"""

import contextlib
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from sciladm.conventions import UserError
from sciladm.data.dataset import open_dataset
from sciladm.data.frames import Frames
from sciladm.data.windows import window_starts
from sciladm.metrics.spectrum import spectrum_for
from sciladm.model import Model
from sciladm.tasks.both_ways import Windows, flow_of
from sciladm.training.checkpoint import read_tensors, write_tensors

Floats = NDArray[np.float64]
STORE = "typicality.safetensors"
EVALUATIONS = 24
"""Of an inversion; what is asked of its noise are sums over many numbers."""
STATES = 256
"""Of validation that say what is usual."""
FEWEST = 20
TOGETHER = 16
"""States that are read and encoded at once."""
FOLDS = 8
"""Stretches of validation, each judged by what the others say."""


def questions(model: Model) -> tuple[list[str], list[str]]:
    """Names of what is asked of a state by itself, and of the noise that leads to it from the
    states before."""
    k, names = range(model.recipe.autoencoder.channels), model.fields.names
    bands = spectrum_for(model.grid).wavenumbers
    alone = [f"{part} residual of {name}" for part in ("coarse", "fine") for name in names]
    alone += [f"mean of latent {n}" for n in k] + [f"energy of latent {n}" for n in k]
    alone += ["largest latent"]
    before = ["log likelihood"] + [f"noise energy of latent {n}" for n in k]
    return alone, before + [f"noise energy at latent wavenumber {b:g}" for b in bands]


@torch.no_grad()
def _alone(model: Model, frames: Frames) -> Floats:
    """Answers of every state by itself (time, question)."""
    area = torch.tensor(model.grid.area, dtype=torch.float32).to(model.device)
    spectrum, rows = spectrum_for(model.fields.grid), []
    for start in range(0, len(frames.times), TOGETHER):
        numbers = np.arange(start, min(start + TOGETHER, len(frames.times)))
        x = model.anomalies(frames.read(numbers), frames.times[numbers])
        z = model.autoencoder.encode(x, model.statics)
        lost = x - model.autoencoder.decode(z, model.statics)
        power = spectrum(lost.where(model.valid, 0.0).cpu().numpy())
        halves = [half.sum(-1) for half in np.array_split(power, 2, axis=-1)]
        mean, energy = ((one * area).flatten(2).sum(2) for one in (z, z.square()))
        largest = z.abs().flatten(1).amax(1, keepdim=True)
        latent = torch.cat([mean, energy.log(), largest.log()], dim=1).cpu().numpy()
        coarse, fine = (np.log(np.maximum(half, 1e-20)) for half in halves)
        rows.append(np.concatenate([coarse, fine, latent], axis=1))
    return np.concatenate(rows).astype(np.float64)


def _given(model: Model, windows: Windows) -> Floats:
    """Answers of the noise of every window (window, question)."""
    flow, spectrum, rows = flow_of(model, EVALUATIONS), spectrum_for(model.grid), []
    for _, part in windows.parts():
        found, _, noise = part.log_density(flow, probes=1)
        square = part.framed(noise).square().flatten(3).mean((1, 3)).log().cpu().numpy()
        power = np.log(spectrum(noise.cpu().numpy()).mean(1))
        rows.append(np.concatenate([found[:, None], square, power], axis=1))
    return np.concatenate(rows)


@dataclass(frozen=True, eq=False)
class Usual:
    """Answers (state, question) of states that are as they should be, and what follows."""

    answers: Floats

    def __post_init__(self) -> None:
        if len(self.answers) < FEWEST:
            raise UserError(
                f"{len(self.answers)} states with the states before them are too few to say what "
                f"is usual; {FEWEST} or more are needed"
            )

    def apart(self, answers: Floats) -> Floats:
        """Answers in standard deviations from the usual (state, question), signed."""
        return np.asarray((answers - self.answers.mean(0)) / self._std)

    @property
    def _std(self) -> Floats:
        return np.asarray(self.answers.std(0).clip(min=1e-9))

    def distance(self, answers: Floats) -> Floats:
        """√(aᵀ C⁻¹ a / questions) of answers a in standard deviations, (state,): about 1 is
        usual. C is their correlation, drawn to 1 as far as it is not known (Ledoit & Wolf 2004,
        J. Multivar. Anal. 88, section 3.3)."""
        usual, a = self.apart(self.answers), self.apart(answers)
        n, q = usual.shape
        sample = usual.T @ usual / n
        apart = ((sample - np.eye(q)) ** 2).sum()
        unsure = ((usual**2).sum(1) ** 2).sum() / n**2 - (sample**2).sum() / n
        share = min(1.0, unsure / max(apart, 1e-12))
        inverse = np.linalg.inv((1 - share) * sample + share * np.eye(q))
        return np.asarray(np.sqrt(np.einsum("sq,qr,sr->s", a, inverse, a) / q))

    def typicality(self, distance: Floats) -> Floats:
        """The share of usual states that are as far away or farther, each judged by the others'
        stretches of time: uniform in (0, 1] for usual states, small for others."""
        pieces = np.array_split(np.arange(len(self.answers)), FOLDS)
        own = [Usual(np.delete(self.answers, piece, axis=0)).distance(self.answers[piece])
               for piece in pieces]  # fmt: skip
        farther = np.sort(np.concatenate(own))
        beyond = len(farther) - np.searchsorted(farther, distance)
        return np.asarray((beyond + 1) / (len(farther) + 1))


def usual(model: Model, reference: xr.Dataset | None) -> Floats:
    """Answers to all questions (state, question): of ``reference``, or of the run's validation
    split, then kept in the run's folder."""
    if reference is not None:
        windows = Windows.of(model, reference)
        return _joined(model, windows)
    path, facts = model.path / STORE, {"model": model.facts.get("model_hash", "")}
    if path.is_file():
        tensors, told = read_tensors(path)
        if told["model"] == facts["model"]:
            return np.asarray(tensors["answers"].numpy())
    data = open_dataset(model.recipe, model.facts.get("source"), None, model.fields)
    if "validation" not in data.splits.ranges:
        raise UserError("the run's data have no validation split now; give a `reference` Dataset")
    starts = window_starts(data.frames.times, model.recipe.window, data.splits["validation"])
    chosen = np.linspace(0, len(starts) - 1, min(STATES, len(starts))).astype(int)
    found = _joined(model, Windows(model, data.frames, starts[chosen]))
    with contextlib.suppress(OSError):  # a folder that is not ours to write in: anew each time
        write_tensors(path, {"answers": torch.from_numpy(found)}, facts)
    return found


def _joined(model: Model, windows: Windows) -> Floats:
    past = model.recipe.window.past
    alone = Frames(windows.frames.ds.isel(time=windows.numbers[:, past]), model.fields)
    return np.concatenate([_alone(model, alone), _given(model, windows)], axis=1)


def typicality(model: Model, ds: xr.Dataset, reference: xr.Dataset | None) -> xr.Dataset:
    """``typicality``, ``distance``, ``given_past`` over time, ``apart`` over time and question."""
    frames = Frames.of(ds, model.fields)
    windows = Windows.held(model, frames)
    alone, before = questions(model)
    normal = usual(model, reference)
    whole, few = Usual(normal), Usual(normal[:, : len(alone)])
    answers = np.full((len(frames.times), normal.shape[1]), np.nan)
    answers[:, : len(alone)] = _alone(model, frames)
    known = np.zeros(len(frames.times), bool)
    if len(windows):
        rows = windows.numbers[:, model.recipe.window.past]
        known[rows] = True
        answers[rows, len(alone) :] = _given(model, windows)
    distance = np.where(known, 0.0, few.distance(answers[:, : len(alone)]))
    distance[known] = whole.distance(answers[known])
    rank = np.where(known, whole.typicality(distance), few.typicality(distance))
    told = {
        "typicality": "share of validation states that are as unusual or more",
        "distance": "distance from the usual, about 1 for usual states",
        "given_past": "whether the states before are known, so that the noise is judged too",
    }
    values = {"typicality": rank, "distance": distance, "given_past": known}
    out = {name: ("time", value, {"long_name": told[name]}) for name, value in values.items()}
    apart = {"long_name": "standard deviations from the usual answer", "units": "1"}
    labels = {"time": frames.times, "question": np.array(alone + before)}
    return xr.Dataset(out | {"apart": (("time", "question"), whole.apart(answers), apart)}, labels)
