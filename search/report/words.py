"""The answer of a search in sentences, which claim no more than the intervals do."""

from __future__ import annotations

import math
from collections.abc import Iterator

from data.quantities import counted
from search.commands import cited
from search.report.findings import Findings
from search.report.networks import Answer, Network
from search.terminal import percent
from trainable.metrics.bootstrap import Difference, Interval
from trainable.metrics.objective import SCORE, Objective

FEW_BACKGROUNDS = 10
"""With fewer, a bootstrap interval is clearly too narrow."""
MAX_DIGITS = 6
"""After the point; a smaller value is a rounding error, and printed as 0."""


def answer_in_words(findings: Findings, answer: Answer) -> str:
    """A paragraph: the result, and whether it differs from the baselines and the best recipe."""
    return " ".join(_sentences(findings, answer))


def basis_in_words(answer: Answer) -> str:
    """What the answer rests on; '' if no image was measured."""
    return " ".join(_basis(answer))


def with_interval(found: Interval, *, signed: bool = False) -> str:
    """A value with its interval, such as '0.612 (0.580 to 0.640)'."""
    if math.isnan(found.value):
        return "unknown"
    ends = (found.value, found.low, found.high)
    # An end that is not 0 must not be printed as 0: the verdict depends on its sign.
    digits = next(digits for digits in range(3, MAX_DIGITS + 1) if all(_is_shown(end, digits) for end in ends))
    form = f"+.{digits}f" if signed else f".{digits}f"
    value, low, high = (f"{end:{form}}".replace("-", "\N{MINUS SIGN}") for end in ends)
    return value if math.isnan(found.low) else f"{value} ({low} to {high})"


def _is_shown(value: float, digits: int) -> bool:
    """Whether a value is not rounded to 0 with this many digits, or is NaN or 0 itself."""
    return round(abs(value), digits) != 0 or round(abs(value), MAX_DIGITS) == 0


def verdict_on(found: Interval, objective: Objective) -> str:
    """What the interval of a difference of the objective says about it, as a clause."""
    verdict = short_verdict(found, objective)
    if verdict == "unknown":
        return "without an interval, it is not known whether the difference is real"
    if verdict in ("gain", "loss"):
        return f"a real {verdict} on images of this kind, as the interval excludes 0"
    return "these images show no difference, as the interval contains 0"


def short_verdict(found: Interval, objective: Objective) -> str:
    """The same in a word or two."""
    if math.isnan(found.low):
        return "unknown"
    if found.low <= 0 <= found.high:
        return "none shown"
    return "gain" if (found.low > 0) == (objective.sign > 0) else "loss"


def amount_of(objective: Objective, found: Interval) -> str:
    """A value of an objective as a noun, such as 'a score of 0.612 (0.580 to 0.640)'."""
    if math.isnan(found.value):
        return f"an unknown {objective.key}"
    return f"{'an' if objective.key[0] in 'aeiou' else 'a'} {objective.key} of {with_interval(found)}"


def meaning_of(objective: Objective, of: str = "search") -> str:
    """A sentence on an objective: its formula, and which values are better."""
    better = "larger" if objective.sign > 0 else "smaller"
    return f"The objective of the {of} is {objective.name}; {better} is better."


def _sentences(findings: Findings, answer: Answer) -> Iterator[str]:
    result, trials, objective = answer.result, counted(len(findings.trials), "trial"), findings.objective
    if result is None:
        yield f"None of {trials} has a network that loads, so that nothing can be compared."
        return
    number = f"trial {answer.chosen.trial}"
    value = result.metrics[objective.key]
    if objective != SCORE:
        yield meaning_of(objective)
    if answer.part == "val":
        amount = amount_of(objective, value)
        yield f"Of {trials}, {number} is the best, with {amount} on the validation images."
        yield (
            "These images picked it, so that the figure is optimistic. The test images are not measured yet: "
            f"{_finish(findings)} retrains the best configuration and measures them."
        )
    else:
        yield f"Of {trials}, {number} is the best. Retrained, it {_reaches(objective, value)} on the test images."
    yield from _against_baselines(answer, result)
    yield from _against_own_weights(answer, number)
    yield from _against_recipe(findings, answer, number)


def _against_own_weights(answer: Answer, number: str) -> Iterator[str]:
    """Whether the retraining cost something, if it is worse by the objective than the trial's weights."""
    retrained, best, objective = answer.network("retrained"), answer.network("best"), answer.objective
    if retrained is None or best is None:
        return
    now, before = (network.metrics[objective.key] for network in (retrained, best))
    if objective.oriented(now.value) >= objective.oriented(before.value):
        return
    found = answer.differences("retrained", "best").get(objective.key)
    compared = f"; retrained, it is {_difference(found, objective)}" if found else ""
    yield f"The weights of {number} itself {_reaches(objective, before, several=True)}{compared}."


def _reaches(objective: Objective, value: Interval, *, several: bool = False) -> str:
    """The predicate on the value of one network, or on that of several weights."""
    if objective == SCORE:
        return f"score{'' if several else 's'} {with_interval(value)}"
    return f"{'have' if several else 'has'} {amount_of(objective, value)}"


def _difference(found: Difference, objective: Objective) -> str:
    said = f"{with_interval(found, signed=True)}: {verdict_on(found, objective)}"
    is_known = not math.isnan(found.probability)
    return f"{said}; the probability of being better is {percent(found.probability)}" if is_known else said


def _against_baselines(answer: Answer, result: Network) -> Iterator[str]:
    key = answer.objective.key
    found = answer.differences(result.key, "baselines").get(key)
    if found is not None:
        yield f"Compared with no network at all, that is {_difference(found, answer.objective)}."
        return
    known = answer.network("baselines")
    if known is not None and not math.isnan(known.metrics[key].value):
        yield (
            f"Without a network, the {key} is {known.metrics[key].value:.3f}; without the figures of each image, "
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
    found = answer.differences("best", "recipe").get(findings.objective.key) or _from_summary(findings, answer)
    if found is None:
        yield f"It was not compared with the best recipe, {name}, image by image."
        return
    yield (
        f"Trained on the same samples for as many epochs at most, {number} compared with the best recipe, {name}, is "
        f"{_difference(found, findings.objective)}."
    )


def _from_summary(findings: Findings, answer: Answer) -> Difference | None:
    """The difference from the recipe that the retraining measured."""
    beyond = (findings.summary.beyond_recipe if findings.summary else None) or {}
    found = beyond.get(findings.objective.key) if answer.part == "test" else None
    if found is None or found.value is None:
        return None
    low, high, probability = (math.nan if end is None else end for end in (found.low, found.high, found.probability))
    return Difference(value=found.value, low=low, high=high, probability=probability)


def _basis(answer: Answer) -> Iterator[str]:
    if not answer.images:
        return
    if answer.backgrounds == 1:
        yield f"All {counted(answer.images, 'image')} have one background, so that there are no intervals."
        return
    yield (
        f"Intervals are 95 % of a bootstrap over the {answer.backgrounds:,} backgrounds of {answer.images:,} images, "
        "and differences are paired by image. Each network was trained once: another seed is not covered."
    )
    if answer.backgrounds < FEW_BACKGROUNDS:
        yield "With so few backgrounds, the intervals are too narrow."


def _finish(findings: Findings) -> str:
    summary, experiment = findings.summary, findings.experiment
    if experiment.is_running:
        return "the search, which still runs,"
    if summary is not None and summary.complete:
        return cited(experiment.command("retrain"))
    return cited(experiment.resume_command)
