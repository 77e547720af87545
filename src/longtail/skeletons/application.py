"""What this application adds to the library."""

from longtail.datasets import DATASETS, Source
from longtail.datasets.kinds import KINDS, Kind
from longtail.extend import NAMES, later
from longtail.models import NETWORKS, Network
from longtail.training.registries import AUGMENTATIONS, DEFAULTS, Augmentation

_KIND = "skeletons"
_JHMDB, _SHREC = "longtail.skeletons.clips:jhmdb", "longtail.skeletons.clips:shrec"
_SETS = {
    **{f"jhmdb{c}-{s}": later(_JHMDB, classes=c, split=s) for c in (14, 21) for s in (1, 2, 3)},
    **{f"shrec{g}": later(_SHREC, gestures=g) for g in (14, 28)},
}
_NAMES = {
    "datasets.jhmdb": "clips:jhmdb",
    "datasets.shrec": "clips:shrec",
    "models.DDNet": "ddnet:DDNet",
    "models.joint_collection_distances": "ddnet:joint_collection_distances",
    "models.two_scale_motion": "ddnet:two_scale_motion",
    "predict.StreamClassifier": "stream:StreamClassifier",
    "training.ddnet": "recipes:ddnet",
    "training.recipes.ddnet": "recipes:ddnet",
}


def register() -> None:
    """Add the data sets of clips, DD-Net and its recipe, augmentations of clips, and their prediction."""
    KINDS.register(
        _KIND,
        Kind("(N, T, J, D)", 4, {"in_channels": 2, "joints": 1}, later("longtail.skeletons.sample:Clips")),
    )
    for name, load in _SETS.items():
        DATASETS.register(name, Source(load))
        DEFAULTS.register(name, later("longtail.skeletons.recipes:ddnet", dataset=name))
    for filters in (16, 32, 64):
        make = later("longtail.skeletons.ddnet:build", filters=filters)
        NETWORKS.register(f"ddnet{filters}", Network(make, _KIND, ("in_channels", "joints")))
    AUGMENTATIONS.register("temporal", Augmentation(later("longtail.skeletons.augment:Played"), _KIND))
    AUGMENTATIONS.register("skeleton", Augmentation(later("longtail.skeletons.augment:Seen"), _KIND))
    for name, place in _NAMES.items():
        NAMES.register(f"longtail.{name}", f"longtail.skeletons.{place}")
