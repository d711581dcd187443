"""Public data sets of the Hugging Face hub, by name or by id."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from harness import (
    HUB_PREFIX,
    SPLIT_NAMES,
    HarnessError,
    LengthProfile,
    Splits,
    load_from_hub,
    pick_splits,
)
from tasks.suite import SuiteOptions, SuiteTask

_KNOWN = {name for names in SPLIT_NAMES.values() for name in names}


class HubOptions(SuiteOptions):
    """Options of a task on a data set of the hub."""

    config: str | None = None
    """Configuration of the data set, if it has several."""
    revision: str | None = None
    """Branch, tag or commit; by default the newest. Name a commit to get equal data every time."""


class SummaryOptions(HubOptions):
    """Options of a public summarization task."""

    prefix: str = "summarize: "
    """Text before every source."""
    max_source_length: int = Field(1024, ge=1)
    """Longest source in tokens; longer ones are truncated and counted."""


class HubTask(SuiteTask[HubOptions]):
    """Any data set of the hub, written ``hub:org/name``.

    Its own splits are used. A missing eval or test split is a tenth of the train rows.

    Attributes:
        hub_id: id of a data set with a registered name; by default the id in the reference.
        default_config: configuration that is used if the options name none.
    """

    Options = HubOptions
    hub_id: ClassVar[str] = ""
    default_config: ClassVar[str | None] = None

    @property
    def name(self) -> str:
        """The name of the task, or the id of the data set."""
        return self.reference.removeprefix(HUB_PREFIX)

    def splits(self, seed: int) -> Splits:
        """Download the data, or take them from the hub library's cache."""
        identity = self.hub_id or self.name
        options = self.options
        splits = load_from_hub(identity, options.config or self.default_config, options.revision)
        named = pick_splits({name: rows for name, rows in splits.items() if name in _KNOWN})
        if "train" not in named:
            raise HarnessError(
                f"{identity} has no train split. Its splits: {', '.join(splits)}.",
                "Save the splits you want as train.jsonl, eval.jsonl and test.jsonl, "
                "and name their folder: --task FOLDER",
            )
        return self.split_datasets(named, seed, identity)


# Lengths in tokens: the mean numbers of words in the papers that published the data, times 1.35
# tokens per word, and at most the limits.


class XSum(HubTask):
    """News -> one sentence (Narayan et al. 2018)."""

    Options = SummaryOptions
    hub_id = "EdinburghNLP/xsum"
    length_profile = LengthProfile(source_mean=582, target_mean=31)


class CnnDailyMail(HubTask):
    """News -> highlights (Hermann et al. 2015, See et al. 2017)."""

    Options = SummaryOptions
    hub_id = "abisee/cnn_dailymail"
    default_config = "3.0.0"
    length_profile = LengthProfile(source_mean=1024, target_mean=76)


class SamSum(HubTask):
    """Chats -> summaries (Gliwa et al. 2019)."""

    Options = SummaryOptions
    hub_id = "knkarthick/samsum"
    length_profile = LengthProfile(source_mean=127, target_mean=27)


class DialogSum(HubTask):
    """Spoken dialogues -> summaries (Chen et al. 2021)."""

    Options = SummaryOptions
    hub_id = "knkarthick/dialogsum"
    length_profile = LengthProfile(source_mean=177, target_mean=32)
