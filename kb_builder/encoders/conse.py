"""ConSE: an encoder of photos into a text encoder's space, without training.

Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings" (ICLR 2014), equation 4: a
picture's vector is the mean of the text vectors of its T most probable ImageNet classes, weighted by their
probabilities. Categories that the classifier was not trained on are then recognised by their nearest texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.errors import InputError
from data.files import hash_file, hash_json
from data.modality import Modality
from data.readers.payload import Bytes
from data.reads import reading
from data.wordnet import ImageNetClass, read_classes
from kb_builder.encoders import lite0, load_encoder
from kb_builder.encoders.base import Encoder, Floats, Source, as_file, unit_rows
from kb_builder.encoders.kept_rows import kept_rows
from kb_builder.encoders.pictures import PICTURE_VERSION, read_views
from kb_builder.encoders.workers import encode_texts

NAME = "conse"
SIZE = 224  # pixels of a side, as in the training of the classifier
TOP = 10  # T

# The classifier was trained on photos; for renderings of other modalities its answers mean nothing.
PHOTOGRAPHED = frozenset({"image", "video"})


@dataclass(frozen=True)
class ConseEncoder:
    """The classifier, and the text vectors of its classes: unit rows in the text encoder's space."""

    network: lite0.Network
    class_vectors_KD: Floats
    name: str
    identity: str
    parameters: int
    licence: str
    modalities: frozenset[str] = PHOTOGRAPHED

    @property
    def dim(self) -> int:
        """D, the dimension of the text encoder."""
        return int(self.class_vectors_KD.shape[1])

    def prepare(self, modality: Modality, source: Source) -> Bytes:
        """uint8[V, S, S, 3]."""
        return read_views(modality, as_file(source), size=SIZE)

    def encode(self, batch: Sequence[Bytes]) -> Floats:
        """float32[N, D], unit rows. A sample's posteriors are the mean over its views."""
        if not batch:
            return np.zeros((0, self.dim), np.float32)
        features_V1280 = lite0.pooled_features(self.network, np.concatenate(batch))
        posteriors_VK = lite0.class_posteriors(self.network, features_V1280)
        ends_N = np.cumsum([len(views) for views in batch])
        posteriors_NK = np.stack([views_VK.mean(axis=0) for views_VK in np.split(posteriors_VK, ends_N[:-1])])
        return combine(posteriors_NK, self.class_vectors_KD)


def combine(posteriors_NK: Floats, class_vectors_KD: Floats, *, top: int = TOP) -> Floats:
    """Equation 4, scaled to unit length (so that its 1/Z drops out): float32[N, D].

    The posteriors are sorted stably, so ties go to the first class on every machine.
    """
    best_NT = np.argsort(-posteriors_NK, axis=1, kind="stable")[:, :top]
    weights_NT = np.take_along_axis(posteriors_NK, best_NT, axis=1)
    return unit_rows(np.einsum("nt,ntd->nd", weights_NT, class_vectors_KD[best_NT]))


def encode_classes(text: Encoder, classes: Sequence[ImageNetClass]) -> Floats:
    """float32[1000, D]: for each class, the mean of the vectors of its names and of its gloss, as a unit row.

    Of eight kinds of text tried, this one classified the most pictures correctly at every picture size.
    """
    texts = [each.lemmas for each in classes] + [each.gloss for each in classes]
    vectors = encode_texts(text, texts, what="class texts")
    return unit_rows(vectors[: len(classes)] + vectors[len(classes) :])


def load_conse(text_name: str = "", *, device: str = "cpu") -> ConseEncoder:
    """ConSE in the space of a text encoder, of MiniLM where none is named.

    Raises InputError where that encoder takes no texts, MissingDependencyError for a missing package.
    """
    text = load_encoder(text_name or "minilm", device)
    if "text" not in text.modalities:
        raise InputError(f"conse:{text_name}: {text_name!r} takes no texts; name a text encoder, e.g. minilm")
    classes = read_classes()
    texts = [[each.lemmas, each.gloss] for each in classes]
    identity = hash_json(
        {
            "name": NAME,
            "weights": hash_file(reading(lite0.weights_path())),
            "text": text.identity,
            "classes": texts,
            "preprocessing": f"{SIZE}/{PICTURE_VERSION}",
            "combination": f"mean of names and gloss, top {TOP}",
            "dim": text.dim,
        }
    )
    network = lite0.load_network(SIZE, device=device)
    class_vectors_KD = kept_rows(
        {"encoder": text.identity, "device": device, "classes": texts},
        (len(classes), text.dim),
        lambda: encode_classes(text, classes),
        words=f"encoding the names and glosses of ImageNet's {len(classes):,} classes with {text.name}",
    )
    return ConseEncoder(
        network=network,
        class_vectors_KD=class_vectors_KD,
        name=NAME if text.name == "minilm" else f"{NAME}:{text.name}",
        identity=identity,
        parameters=sum(weight.numel() for weight in network.parameters()) + text.parameters,
        licence=f"{lite0.LICENCE} (pictures), {text.licence} (texts)",
    )
