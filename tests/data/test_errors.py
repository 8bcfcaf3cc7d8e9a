"""Faults of the environment: errors of resources that all trials share."""

from __future__ import annotations

import errno
import pickle

import pytest

from data.errors import EnvironmentFaultError, InputError, did_you_mean, environment


def test_unreadable_file_is_a_fault_with_the_same_message() -> None:
    """Commands that read one data set show the sentence; a search waits, and shows its first part."""
    with pytest.raises(EnvironmentFaultError) as raised, environment("The data set"):
        raise InputError("The data set 'x; y' does not exist; give the directory of a data set.")

    assert str(raised.value) == "The data set 'x; y' does not exist; give the directory of a data set."
    assert raised.value.reason == "The data set 'x; y' does not exist"


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ENOSPC, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES])
def test_os_error_is_a_fault_that_names_the_file(code: int) -> None:
    """Whatever the reason, no other configuration would have done better."""
    with pytest.raises(EnvironmentFaultError, match=r"^The cache 'c' cannot be used \(.+: 'c/entry'\); "):  # noqa: SIM117
        with environment("The cache 'c'"):
            raise OSError(code, errno.errorcode[code], "c/entry")


@pytest.mark.parametrize("error", [OSError(errno.ENOMEM, "Cannot allocate memory"), ValueError("a bug"), MemoryError()])
def test_memory_errors_and_bugs_are_not_faults(error: BaseException) -> None:
    """They come of the trial: it would fail again however long is waited."""
    with pytest.raises(type(error)) as raised, environment("The data set"):
        raise error

    assert raised.value is error
    assert not isinstance(raised.value, EnvironmentFaultError)


def test_fault_is_not_wrapped_again() -> None:
    """Through the blocks around it, and from one process to another."""
    with pytest.raises(EnvironmentFaultError) as raised, environment("The storage"), environment("The data set"):
        raise OSError(errno.ENOENT, "No such file", "part-0")
    sent = pickle.loads(pickle.dumps(raised.value))  # noqa: S301

    assert sent.reason == "The data set cannot be used (No such file: 'part-0')"


def test_a_misspelt_name_is_answered_with_the_one_that_is_meant() -> None:
    """A list of twelve keys hides the one that differs in a letter; where none is similar, nothing is suggested."""
    assert did_you_mean("sampels", ["path", "samples", "split"]) == " (did you mean 'samples'?)"
    assert did_you_mean("colour", ["path", "samples", "split"]) == ""
