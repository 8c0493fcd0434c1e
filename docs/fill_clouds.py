"""Real clouds over real sea: recipes/sst.yaml trained, `python docs/fill_clouds.py clouds.png`."""

import os
import sys

import matplotlib.pyplot as plt
import xarray as xr

import sciladm

shared = os.environ["SCILADM_DATA"]
scenes = xr.open_dataset(f"{shared}/alboran_sst_clouds/alboranSST_small.nc").SST[1:6]
clouds = scenes[:, 96:128, 68:100].isnull().values  # of the Alboran Sea: a corner without land
days = sciladm.open_dataset("oisst-tasman")[["sst"]].sel(time=slice("2011-02-01", "2011-02-05"))
days = days.load()
gappy = days.where(~clouds)

model = sciladm.load(sys.argv[2] if len(sys.argv) > 2 else "runs/sst-local")
filled = model.infill(gappy, members=16).sst

shown = {"truth": days.sst, "seen": gappy.sst} | {f"member {n}": filled[n] for n in range(3)}
shown["spread [K]"] = filled.std("member", ddof=1)
figure, axes = plt.subplots(len(days.time), len(shown), figsize=(13, 10), layout="constrained")
for column, (name, field) in enumerate(shown.items()):
    for row, axis in enumerate(axes[:, column]):
        limits = {} if "spread" in name else {"vmin": days.sst.min(), "vmax": days.sst.max()}
        field[row].plot(ax=axis, add_colorbar=row == 0, cmap="viridis", **limits)
        axis.set(title=name if row == 0 else "", xlabel="", ylabel="", xticks=[], yticks=[])
figure.savefig(sys.argv[1], dpi=90)
