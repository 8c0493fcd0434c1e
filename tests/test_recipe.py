"""Recipes: what they may say, and what is said to someone who mistypes."""

from pathlib import Path

import pytest
import yaml

from sciladm import recipe, schema
from sciladm.conventions import UserError

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
SMALL = {"schema": 1, "name": "small", "data": {"card": "tiny"}}


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_parses_and_survives_its_own_text(path, tmp_path):
    read = recipe.load(path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(read.text())
    assert recipe.load(copy) == read


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"denoiser.stepz": 3}, "unknown key `denoiser.stepz`; did you mean `steps`?"),
        ({"sampler.guidance": 2.0}, "sampler.guidance needs a network"),
        ({"denoiser.gains": True}, "denoiser.gains needs window.past: 0"),
        ({"sampler.guidance_interval": [0.1, 1.0]}, "give guidance, too"),
        (
            {
                "denoiser.dropout": 0.1,
                "sampler": {"guidance": 2.0, "guidance_interval": [1.0, 0.1]},
            },
            "0 ≤ low < high",
        ),
        ({"denosier": {}}, "did you mean `denoiser`?"),
        ({"denoiser.steps": "many"}, "`denoiser.steps`: Input should be a valid integer"),
        ({"denoiser.steps": 0}, "greater than 0"),
        ({"window.step": "1 fortnight"}, "window"),
        ({"data": {}}, "either `card` or `path`"),
        ({"output.layout": "grib"}, "'sciladm' or 'weatherbench2'"),
        ({"name.x": 1}, "`name` is a value, not a section"),
        ({"schema": 2}, "schema"),
    ],
)
def test_mistakes_are_told(changes, message):
    tree = {key: dict(v) if isinstance(v, dict) else v for key, v in SMALL.items()}
    with pytest.raises(UserError) as caught:
        recipe.parse(tree, changes, "here")
    assert message in str(caught.value)


def test_a_key_given_twice_is_refused(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("schema: 1\nname: a\nname: b\ndata: {card: tiny}\n")
    with pytest.raises(UserError, match="`name` stands twice"):
        recipe.load(path)


def test_absent_recipe_names_the_others(tmp_path):
    (tmp_path / "other.yaml").write_text("")
    with pytest.raises(UserError, match=r"other\.yaml"):
        recipe.load(tmp_path / "one.yaml")


def test_fingerprint_is_blind_to_what_may_change_after_training():
    base = recipe.parse(dict(SMALL), {}, "here")
    later = recipe.parse(dict(SMALL), {"sampler.steps": 7, "evaluation.lead": "1d"}, "here")
    other = recipe.parse(dict(SMALL), {"denoiser.steps": 7}, "here")
    assert base.fingerprint() == later.fingerprint() != other.fingerprint()


def test_numbers_and_dates_are_read_as_people_mean_them():
    read = schema.read_yaml("a: 1e-3\nb: 1979-01-01\n", "here")
    assert read == {"a": 1e-3, "b": "1979-01-01"}
    assert yaml.safe_load("a: 1e-3")["a"] == "1e-3"
