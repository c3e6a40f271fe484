"""The model card: what was trained, on what, how well, and what it is not good for."""

import json
from pathlib import Path
from typing import Any

import jinja2

from ablations import STEPS, get_regime
from inference.predictor import Predictor


def render(predictor: Predictor, form: str, difference: float, checked: str, license: str) -> str:
    """Markdown with the front matter of a model repository. Figures come from the run's result.json, if it has one.

    Raises:
        ValueError: one of the run's files is damaged.
    """
    try:
        return _render(predictor, form, difference, checked, license)
    except (jinja2.TemplateError, KeyError, TypeError, AttributeError, RecursionError, ValueError) as error:
        raise ValueError(
            f"what {predictor.folder} says of itself is damaged ({type(error).__name__}: {error}): restore its "
            "config.json, its result.json and its study's study.json, or remove them"
        ) from None


def _render(predictor: Predictor, form: str, difference: float, checked: str, license: str) -> str:
    run = predictor.folder
    config, result = _read(run / "config.json"), _read(run / "result.json")
    study = _read(run.parents[1] / "study.json") if len(run.absolute().parents) > 1 else {}
    dataset: dict[str, Any] = study.get("dataset", {})
    regime = get_regime(study["config"]["regime"]) if "config" in study else None
    step = next((step for step in STEPS if step.name == predictor.step), None)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("card.md.j2").render(
        predictor=predictor, form=form, difference=difference, checked=checked, license=license, result=result,
        recipe=config.get("recipe", {}), dataset=dataset, regime=regime, step=step,
        initial=study.get("config", {}).get("init_weights"),
    )  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}
