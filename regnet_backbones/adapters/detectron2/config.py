"""The config node ``MODEL.REGNET``, under the key names that VISSL's published Detectron2 configs use."""

from __future__ import annotations

from detectron2.config import CfgNode

from ...arch import Arch, get_arch
from ...design_space import DesignPoint, point_from
from ...errors import UserError

# Config key to the parameter of the design space; the first five describe a network, the others have defaults.
PARAMETERS = {
    "DEPTH": "depth",
    "W0": "w_0",
    "WA": "w_a",
    "WM": "w_m",
    "GROUP_W": "group_width",
    "BOT_MUL": "bot_mul",
    "SE_R": "se_ratio",
    "STEM_W": "stem_width",
}
REQUIRED = tuple(PARAMETERS)[:5]


def add_regnet_config(cfg: CfgNode) -> None:
    """Add ``MODEL.REGNET``, two options of RetinaNet's FPN and two of our trainer's solver to a Detectron2 config."""
    cfg.MODEL.REGNET = node = CfgNode()

    # The network: a name in any usual spelling (regnety_4gf, RegNetY-4.0GF, regnety_040) or parameters as text
    # (depth=13,w_0=24,...) ...
    node.ARCH = ""
    # ... or the parameters one by one. None: not given.
    node.DEPTH = None  # number of blocks
    node.W0 = None  # first width, a multiple of 8
    node.WA = None  # slope of the widths over the blocks
    node.WM = None  # ratio of neighbouring stages' widths
    node.GROUP_W = None  # channels per group of the 3x3 convolutions
    node.BOT_MUL = None  # bottleneck width over block width, 1.0 when None
    node.SE_R = None  # squeeze width over the block's input width; 0.0 (RegNetX) when None, RegNetY has 0.25
    node.STEM_W = None  # channels of the stem, 32 when None

    # BN, FrozenBN, SyncBN, GN or LN.
    node.NORM = "FrozenBN"
    # Of stem, s1, s2, ...; [] means those that the neck takes (strides 4 to 32, RetinaNet's 8 to 32, unless
    # MODEL.FPN.IN_FEATURES names others), or all stages without a neck.
    node.OUT_FEATURES = []
    # 8 or 16 replaces the strides beyond it by dilation; None keeps the architecture's.
    node.OUTPUT_STRIDE = None
    # Keep batch norms in eval mode while training; their affine still learns.
    node.NORM_EVAL = False
    # Rate of stochastic depth at the last block.
    node.DROP_PATH = 0.0
    # Recompute activations in the backward pass instead of keeping them: less memory, a third more time.
    node.CHECKPOINTING = False
    # Accept weights that do not fill the backbone, or that have backbone keys without a place.
    node.ALLOW_PARTIAL = False
    # Stop when the weights expect another channel order or other statistics than INPUT.FORMAT, PIXEL_MEAN and
    # PIXEL_STD feed; False only warns.
    node.CHECK_PIXELS = True

    # RetinaNet's levels above the trunk. MMDetection's configs have no ReLU there: a converted detector says which.
    cfg.MODEL.FPN.RELU_BEFORE_P7 = True
    cfg.MODEL.FPN.P6_FROM_P5 = False  # out of the FPN's last level instead of the trunk's last feature

    # Read by our trainer: SGD (Detectron2's) or ADAMW, with Detectron2's parameter groups either way.
    cfg.SOLVER.OPTIMIZER = "SGD"
    # SOLVER.CLIP_GRADIENTS.CLIP_TYPE, besides Detectron2's "value" and "norm" (each parameter by itself),
    # takes "full_model" there: the norm over all parameters together.


def arch_from_config(cfg: CfgNode) -> Arch:
    """The architecture that ``MODEL.REGNET`` describes.

    Raises:
        UserError: an unknown name, impossible or missing parameters, or a name and parameters that contradict.
    """
    node = cfg.MODEL.REGNET
    given = {key: node[key] for key in PARAMETERS if node[key] is not None}
    if node.ARCH:
        arch = get_arch(node.ARCH)
        _require_agreement(arch, given)
        return arch
    missing = [key for key in REQUIRED if key not in given]
    if missing:
        raise UserError(
            "the config does not say which RegNet: set MODEL.REGNET.ARCH (regnety_4gf, for example), or all of"
            f" MODEL.REGNET.{', '.join(REQUIRED)} (missing: {', '.join(missing)})"
        )
    return get_arch(point_from({PARAMETERS[key]: value for key, value in given.items()}))


def _require_agreement(arch: Arch, given: dict[str, object]) -> None:
    if not given or arch.point is None:
        return
    stated = {name: getattr(arch.point, name) for name in DesignPoint.__dataclass_fields__}
    other = point_from(stated | {PARAMETERS[key]: value for key, value in given.items()})
    for key in given:
        ours, theirs = getattr(arch.point, PARAMETERS[key]), getattr(other, PARAMETERS[key])
        if ours != theirs:
            raise UserError(
                f"MODEL.REGNET.ARCH {arch.name} has {key} {ours:g}, but MODEL.REGNET.{key} is {theirs:g}; give the"
                " name or the parameters (ARCH '' takes a base config's name away)"
            )
