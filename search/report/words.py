"""The answer of a search in sentences, which claim no more than the intervals do."""

from __future__ import annotations

import math
from collections.abc import Iterator

from search.commands import cited, shell_command
from search.report.findings import Findings
from search.report.networks import Answer, Network
from trainable.metrics.bootstrap import Interval
from trainable.metrics.names import OBJECTIVE

FEW_BACKGROUNDS = 10
"""With fewer, a bootstrap interval is clearly too narrow."""


def answer_in_words(findings: Findings, answer: Answer) -> str:
    """A paragraph: the result, and whether it differs from the baselines and the best recipe."""
    return " ".join(_sentences(findings, answer))


def basis_in_words(answer: Answer) -> str:
    """What the answer rests on; '' if no image was measured."""
    return " ".join(_basis(answer))


def with_interval(found: Interval, *, signed: bool = False) -> str:
    """A value with its interval, such as '0.612 (0.580 to 0.640)'."""
    form = "+.3f" if signed else ".3f"
    value, low, high = (f"{end:{form}}".replace("-", "\N{MINUS SIGN}") for end in (found.value, found.low, found.high))
    return value if math.isnan(found.low) else f"{value} ({low} to {high})"


def verdict_on(found: Interval) -> str:
    """What the interval of a difference says about it, as a clause."""
    if math.isnan(found.low):
        return "without an interval, it is not known whether the difference is real"
    if found.low > 0:
        return "a real gain on images of this kind, as the interval excludes 0"
    if found.high < 0:
        return "a real loss on images of this kind, as the interval excludes 0"
    return "these images show no difference, as the interval contains 0"


def short_verdict(found: Interval) -> str:
    """The same in a word or two."""
    if math.isnan(found.low):
        return "unknown"
    return "gain" if found.low > 0 else "loss" if found.high < 0 else "not shown"


def _sentences(findings: Findings, answer: Answer) -> Iterator[str]:
    result, count = answer.result, len(findings.trials)
    if result is None:
        yield f"None of the {count} trials has a network that loads, so that nothing can be compared."
        return
    number = f"trial {answer.chosen.trial}"
    score = with_interval(result.metrics[OBJECTIVE])
    if answer.part == "val":
        yield f"Of {count} trials, {number} is the best, with a score of {score} on the validation images."
        yield (
            "These images picked it, so that the figure is optimistic. The test images are not measured yet: "
            f"{_finish(findings)} retrains the best configuration and measures them."
        )
    else:
        yield f"Of {count} trials, {number} is the best. Retrained, it scores {score} on the test images."
    yield from _against_baselines(answer, result)
    yield from _against_own_weights(answer, number)
    yield from _against_recipe(findings, answer, number)


def _against_own_weights(answer: Answer, number: str) -> Iterator[str]:
    """Whether the retraining cost something, if its score is lower than that of the trial's weights."""
    retrained, best = answer.network("retrained"), answer.network("best")
    if retrained is None or best is None or retrained.metrics[OBJECTIVE].value >= best.metrics[OBJECTIVE].value:
        return
    found = answer.differences("retrained", "best").get(OBJECTIVE)
    compared = f"; retrained, it is {with_interval(found, signed=True)}: {verdict_on(found)}" if found else ""
    yield f"The weights of {number} itself score {with_interval(best.metrics[OBJECTIVE])}{compared}."


def _against_baselines(answer: Answer, result: Network) -> Iterator[str]:
    found = answer.differences(result.key, "baselines").get(OBJECTIVE)
    if found is not None:
        yield f"Compared with no network at all, that is {with_interval(found, signed=True)}: {verdict_on(found)}."
        return
    known = answer.network("baselines")
    if known is not None:
        yield (
            f"Without a network, the score is {known.metrics[OBJECTIVE].value:.3f}; without the figures of each image, "
            "it is not known whether the difference is real."
        )


def _against_recipe(findings: Findings, answer: Answer, number: str) -> Iterator[str]:
    name = answer.chosen.recipe
    if not name:
        yield "No recipe ran for all epochs, so that the search is not compared with one."
        return
    if answer.chosen.is_recipe:
        yield f"That trial is the recipe {name}: the search found nothing better."
        return
    found = answer.differences("best", "recipe").get(OBJECTIVE) or _from_summary(findings, answer)
    if found is None:
        yield f"It was not compared with the best recipe, {name}, image by image."
        return
    yield (
        f"Trained on the same samples for as many epochs at most, {number} compared with the best recipe, {name}, is "
        f"{with_interval(found, signed=True)}: {verdict_on(found)}."
    )


def _from_summary(findings: Findings, answer: Answer) -> Interval | None:
    """The difference from the recipe that the retraining measured."""
    beyond = (findings.summary.beyond_recipe if findings.summary else None) or {}
    found = beyond.get(OBJECTIVE) if answer.part == "test" else None
    if found is None or found.value is None:
        return None
    low, high = (math.nan if end is None else end for end in (found.low, found.high))
    return Interval(value=found.value, low=low, high=high)


def _basis(answer: Answer) -> Iterator[str]:
    if not answer.images:
        return
    if answer.backgrounds == 1:
        yield f"All {answer.images} images have one background, so that there are no intervals."
        return
    yield (
        f"Intervals are 95 % of a bootstrap over the {answer.backgrounds} backgrounds of {answer.images} images, and "
        "differences are paired by image. Each network was trained once: another seed is not covered."
    )
    if answer.backgrounds < FEW_BACKGROUNDS:
        yield "With so few backgrounds, the intervals are too narrow."


def _finish(findings: Findings) -> str:
    summary, experiment = findings.summary, findings.experiment
    if summary is not None and summary.complete:
        return cited(shell_command("twinhead", "retrain", experiment.name, "--storage", experiment.storage))
    return cited(experiment.resume_command)
