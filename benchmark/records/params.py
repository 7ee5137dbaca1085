"""What a cell was trained with, as stores and files of results call it."""

from typing import Any


def params(config: dict[str, Any]) -> dict[str, str]:
    """Hyper-parameters and sizes, flat."""
    model = {"model" if name == "name" else f"model_{name}": value for name, value in config["model"].items()}
    names = ("batch_size", "data_noise", "precision", "accumulate", "steps", "seed")
    others = {"data": config["data"]["name"], **{name: config[name] for name in names}}
    if "scaling" in config["data"]:
        others["data_scale"] = config["data"]["scaling"]["kind"]
    if "binarize" in config["data"]:
        others["data_binarize"] = config["data"]["binarize"]
    if "held_out" in config["data"]:
        others["data_held_out"] = config["data"]["held_out"]
    return {name: str(value) for name, value in {**config["hyper"], **model, **others}.items()}
