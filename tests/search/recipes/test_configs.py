"""The configurations of a comparison, and what its report says about them."""

from __future__ import annotations

from search.recipes.configs import make_comparison


def notes(*overrides: tuple[str, str], recipes: tuple[str, ...] = ("all",)) -> list[str]:
    return make_comparison("data", recipes, epochs=9, overrides=overrides, faithful=False).notes


def test_notes_say_what_is_trained() -> None:
    """The report said 9 epochs where --set gave 4, and one image size where a recipe begins with smaller images."""
    policies, images, *_ = notes(("epochs", "4"), ("data.image_size", "128"))
    assert policies == "every learning-rate policy is scaled to 4 epochs"
    assert images == "all use images of 128 px with the same resizing and split, after smaller ones for ramana-dnn"

    assert notes(("data.progression", "[]"))[1] == "all use images of 96 px with the same resizing and split"
    assert notes(recipes=("birender-cnn",))[1] == "all use images of 96 px with the same resizing and split"
