"""What a detector's tensors do not tell and its config must say, kept in the metadata from file to file.

=================  ==========================================================================================
relu_before_p7     RetinaNet: a ReLU before the convolution that makes P7. Always in Detectron2; in MMDetection only
                   with ``relu_before_extra_convs``, which its configs leave off.
p6_from_p5         RetinaNet: P6 is made from P5 and not from the trunk's last feature.
anchor_ratios      How many aspect ratios the anchors of a cell have; 3 in both frameworks' configs.
detector           Which one it is, for a reader.
=================  ==========================================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ...errors import UserError

logger = logging.getLogger(__name__)
SWITCHES = {"relu_before_p7": bool, "p6_from_p5": bool, "anchor_ratios": int}
_OF_RETINANET = ("relu_before_p7", "p6_from_p5")


def default_settings(detector: str, framework: str) -> dict[str, Any]:
    """What the detector has in the framework's own configs."""
    settings: dict[str, Any] = {"detector": detector, "anchor_ratios": 3}
    if detector == "retinanet":
        settings |= {"relu_before_p7": framework == "detectron2", "p6_from_p5": False}
    return settings


def checked(asked: Mapping[str, Any], detector: str) -> dict[str, Any]:
    """The settings that the user states.

    Raises:
        UserError: one that does not exist, is not this detector's, or has a value of another kind.
    """
    known = [name for name in SWITCHES if detector == "retinanet" or name not in _OF_RETINANET]
    for name, value in asked.items():
        if name not in known:
            raise UserError(f"this detector has no setting '{name}'; choose among {', '.join(known)}")
        if type(value) is not SWITCHES[name] or (SWITCHES[name] is int and value < 1):
            kind = "true or false" if SWITCHES[name] is bool else "a whole number above 0"
            raise UserError(f"the setting {name}={value!r} is not {kind}")
    return dict(asked)


def parsed(words: tuple[str, ...]) -> dict[str, Any]:
    """``name=value`` words of a command line.

    Raises:
        UserError: a word that is none.
    """
    values: dict[str, Any] = {"true": True, "false": False}
    settings = {}
    for word in words:
        name, _, value = word.partition("=")
        if value.lower() not in values and not value.isdigit():
            raise UserError(f"'{word}' is not a setting; write it as relu_before_p7=true or anchor_ratios=3")
        settings[name] = int(value) if value.isdigit() else values[value.lower()]
    return settings


def config_lines(settings: Mapping[str, Any], framework: str) -> list[str]:
    """What to set in the target's config, where it differs from what this project's configs have."""
    usual = default_settings(settings["detector"], framework)
    return [line for name, line in _lines(settings, framework).items() if settings[name] != usual[name]]


def check_settings(
    known: Mapping[str, Any], built: Mapping[str, Any], framework: str, *, strict: bool, switch: str
) -> None:
    """Compare the settings that come with weights with those of the network that they are loaded into.

    Args:
        known: of the weights; empty when their file says nothing.
        built: of the network; empty when it is no RetinaNet.
        framework: whose config to correct.
        strict: raise on a contradiction; otherwise log it as a warning.
        switch: the setting that makes ``strict`` false.

    Raises:
        UserError: the two contradict each other.
    """
    wrong = [name for name in _OF_RETINANET if name in known and name in built and known[name] != built[name]]
    if not wrong:
        return
    lines = _lines(known, framework)
    sentence = (
        f"the weights are of a RetinaNet with {', '.join(f'{name}={known[name]}' for name in wrong)}, which the config"
        f" does not build: set {', '.join(lines[name] for name in wrong)}, or go on all the same with {switch}"
    )
    if strict:
        raise UserError(sentence)
    logger.warning(sentence)


def _lines(settings: Mapping[str, Any], framework: str) -> dict[str, str]:
    """Setting to the words that say it in the framework's config."""
    source = "on_output" if settings.get("p6_from_p5") else "on_input"
    words = {
        "relu_before_p7": ("MODEL.FPN.RELU_BEFORE_P7 {}", "model.neck.relu_before_extra_convs={}"),
        "p6_from_p5": ("MODEL.FPN.P6_FROM_P5 {}", f"model.neck.add_extra_convs={source}"),
    }
    side = 0 if framework == "detectron2" else 1
    return {name: words[name][side].format(settings[name]) for name in _OF_RETINANET if name in settings}
