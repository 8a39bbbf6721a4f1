"""What the builder asks of a data set: a list of studies, and each study on demand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from data_shards.errors import InputError
from data_shards.profiles import Config
from data_shards.records.manifest import DroppedSample
from data_shards.records.study import Sample, Split


@dataclass(frozen=True, slots=True, order=True)
class StudyRef:
    """A study by its ids. `split` None: the builder draws one by patient."""

    patient_id: str
    study_id: str
    split: Split | None = None


class SourceConfig(Config):
    """Base of the settings of a data set; each gives `name` the value that profiles choose it by.

    Name and `licence` are stored with every sample. `unknown_views`: an image whose view is none of
    the known stops the build, or is left out and counted. `bad_reports`: so for a study whose
    report is absent, empty or cannot be read.
    """

    name: str
    licence: str
    unknown_views: Literal["stop", "drop"] = "stop"
    bad_reports: Literal["stop", "drop"] = "stop"

    @abstractmethod
    def open(self) -> Source:
        """The data set."""


class Source(ABC):
    """One data set.

    A pickle holds the settings only: tables and archives are opened in the process that reads
    them.
    """

    def __init__(self, config: SourceConfig) -> None:
        self.config = config

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config}

    @abstractmethod
    def list_studies(self) -> Sequence[StudyRef]:
        """Every study the tables name, sorted by patient and study id, without reading reports.

        Raises InputError for duplicate ids, an unknown view (where the policy is to stop) and
        a patient in two splits.
        """

    @abstractmethod
    def load_study(self, ref: StudyRef) -> Sample | str:
        """The study with its report parsed and its images listed (not decoded), or the reason why
        it is left out; reasons are counted, so they name no id.

        Raises InputError for bad input that the policy is to stop at.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of the texts and tables the studies come from: others give other shards.

        Content decides, neither names of folders nor file times. Each source says what is too
        much to read for it. Asked after `list_studies`, which refuses what is absent.
        """

    def list_dropped_images(self) -> Sequence[DroppedSample]:
        """Images the tables name that no study will hold, by image id, and why.

        Those of studies that are dropped whole may be among them; those a profile filters out
        by view are not.
        """
        return ()

    def side_reports(self) -> Mapping[str, str]:
        """Texts to write beside the manifest, by file name (an overlap with another set)."""
        return {}


def refuse_patients_in_two_splits(refs: Sequence[StudyRef], *, where: str) -> None:
    """Raise InputError naming the first patient whose studies lie in different splits."""
    placed: dict[str, StudyRef] = {}
    for ref in refs:
        if ref.split is None:
            continue
        first = placed.setdefault(ref.patient_id, ref)
        if first.split != ref.split:
            raise InputError(
                f"{where}: patient {ref.patient_id} is in two splits (study {first.study_id} in "
                f"{first.split}, study {ref.study_id} in {ref.split}): give all studies of a "
                "patient one split"
            )
