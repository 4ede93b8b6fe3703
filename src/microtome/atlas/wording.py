"""Wording of sentences on pages: lists, nouns with their article, what maps of images keep."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["images_in_words", "in_percent", "kept_by_pca", "kept_by_tsne", "listed", "sentence", "with_article"]


def listed(names: Sequence[str]) -> str:
    """Names as a list within a sentence.

    Examples
    --------
    >>> listed(["Grad-CAM"]), listed(["LRP", "CAM"]), listed(["a", "b", "c"])
    ('Grad-CAM', 'LRP and CAM', 'a, b and c')
    """
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def with_article(noun: str) -> str:
    """A noun with "a" or "an", by its first letter or, of a number, by how it is spoken.

    Examples
    --------
    >>> with_article("Afghan hound"), with_article("tench"), with_article("8"), with_article("unicycle")
    ('an Afghan hound', 'a tench', 'an 8', 'a unicycle')
    """
    lowered = noun.lower()
    spoken_as_consonant = lowered.startswith(("uni", "euro", "ewe", "one", "once", "ute", "use", "ukulele"))
    vowel = lowered[:1] in "aeiou" and not spoken_as_consonant
    number = lowered.startswith("8") or lowered in ("11", "18")
    silent = lowered.startswith(("hour", "honest", "honou", "honor", "heir"))
    return f"{'an' if vowel or number or silent else 'a'} {noun}"


def images_in_words(many: int) -> str:
    """A number of images.

    Examples
    --------
    >>> images_in_words(1), images_in_words(12000)
    ('1 image', '12,000 images')
    """
    return f"{many:,} image{'' if many == 1 else 's'}"


def in_percent(share: float) -> str:
    """A probability in percent with one decimal; what is nearly all or nearly nothing is not rounded to it.

    Examples
    --------
    >>> in_percent(0.723), in_percent(1.0), in_percent(0.99999), in_percent(0.00001), in_percent(0.0)
    ('72.3 %', '100.0 %', 'above 99.9 %', 'below 0.1 %', '0.0 %')
    """
    text = f"{100 * share:.1f} %"
    if text == "100.0 %" and share < 1:
        return "above 99.9 %"
    return "below 0.1 %" if text == "0.0 %" and share > 0 else text


def sentence(text: str) -> str:
    """A message as a sentence.

    Examples
    --------
    >>> sentence("the image is gray"), sentence("t-SNE needs openTSNE.")
    ('The image is gray.', 't-SNE needs openTSNE.')
    """
    first = text[:1] if text[1:2] == "-" else text[:1].upper()  # t-SNE keeps its small letter
    return f"{first}{text[1:]}" if text.endswith(".") else f"{first}{text[1:]}."


def kept_by_tsne() -> str:
    """What a map by t-SNE keeps of the images' places in a layer, and what it does not."""
    return (
        "t-SNE keeps neighbours: images with the most similar responses of the layer's units are near each other. It "
        "does not keep distances: how far apart groups are, and how large, means nothing."
    )


def kept_by_pca(share: float) -> str:
    """What a map by PCA keeps, with the share of the variance along its two directions."""
    return (
        "PCA keeps distances along the two directions in which the responses of the layer's units differ most, "
        f"{100 * share:.0f} % of all differences between the images. "
        "It drops the others: images that lie on each other may differ there."
    )
