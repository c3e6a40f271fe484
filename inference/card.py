"""The model card: what was trained, on what, how well, and what it is not good for."""

import json
from pathlib import Path
from typing import Any

import jinja2

from ablations import STEPS, get_regime
from ablations.text import plain
from inference.predictor import Predictor


def render(predictor: Predictor, form: str, difference: float, checked: str, license: str) -> str:
    """Markdown with the front matter of a model repository. Figures come from the run's result.json, if it has one."""
    run = predictor.folder
    config, result = _read(run / "config.json"), _read(run / "result.json")
    study = _read(run.parents[1] / "study.json") if len(run.absolute().parents) > 1 else {}
    step = next((step for step in STEPS if step.name == predictor.step), None)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = plain
    try:
        dataset: dict[str, Any] = study.get("dataset", {})
        regime = get_regime(study["config"]["regime"]) if "config" in study else None
        return environment.get_template("card.md.j2").render(
            predictor=predictor, form=form, difference=difference, checked=checked, license=license, result=result,
            recipe=config.get("recipe", {}), dataset=dataset, regime=regime, step=step,
            initial=study.get("config", {}).get("init_weights"),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, jinja2.UndefinedError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the records of {run} are damaged, a field is missing or wrong ({reason}): restore") from None


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in a file of the run; nothing where there is no such file."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged, it is no JSON object ({error}): restore it") from None
