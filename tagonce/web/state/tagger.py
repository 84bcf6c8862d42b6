"""Runs the model of the stored scores on one picture at a time."""

from typing import TYPE_CHECKING

from anyio import CapacityLimiter

from db.errors import SettingsError
from db.ledger.models import Model
from tagonce.from_settings import find_spec_of, missing_for_worker, worker_options
from tagonce.settings import Settings

if TYPE_CHECKING:
    from workers.images.decode import Decoder
    from workers.inference.infer import Inferencer


class Tagger:
    """The model of the stored scores, loaded when it is first asked for. One thread at a time."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self._model = model
        self._settings = settings
        self.turn = CapacityLimiter(1)
        """For the thread that calls `probabilities`."""
        self._loaded: tuple[Decoder, Inferencer] | None = None

    @property
    def missing(self) -> str:
        """Packages that are missing; empty if a model can run here."""
        return ", ".join(missing_for_worker())

    def probabilities(self, data: bytes) -> list[float]:
        """(tags,) the probabilities of a file.

        Raises:
            ImageError: it cannot be decoded, or the model gives NaN for it.
            SettingsError, ModelError: the model cannot be loaded, or is not the one whose scores are stored.
        """
        decoder, inferencer = self._loaded = self._loaded or self._load()
        return inferencer.probabilities([decoder.decode(data)])[0].tolist()

    def _load(self) -> "tuple[Decoder, Inferencer]":
        from workers.images.decode import Decoder
        from workers.inference.infer import Inferencer

        model, settings = self._model, self._settings
        if "model" not in settings.model_fields_set:  # not set: the model of the scores
            settings = settings.model_copy(update={"model": model.name})
        spec = find_spec_of(settings)
        if spec.weights_sha256() != model.weights_sha256:
            raise SettingsError(
                f"The scores here are of {model.name} with weights {model.weights_sha256[:8]}; {settings.model} has "
                "others. Start `tagonce review` with TAGONCE_MODEL set to that model, or to its folder."
            )
        options = worker_options(settings, spec)
        decoder = Decoder(spec, options.max_pixels, pixels_in_flight=options.max_pixels_in_flight)
        return decoder, Inferencer(spec, options, floor=0)
