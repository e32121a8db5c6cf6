"""What the training processes are told by the supervisor: one JSON file in the run folder."""

from __future__ import annotations

import json
from dataclasses import dataclass

from lorajob_runtime.contract import spec as spec_module
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.system.environment import Device


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainJob:
    """One attempt at training. Paths other than the model's follow from the run folder."""

    spec: RunSpec
    model_path: str
    model_source: str
    model_revision: str
    base_name: str
    """What PEFT loads under the adapter: a hub's id, or a folder."""
    device: Device
    resume_step: int | None
    attempt: int
    evaluation_pending: bool = True
    """Whether the evaluation and samples that belong to the checkpoint, as its state says, were not all made since."""

    def dumps(self) -> str:
        """The job as JSON."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "spec"}
        return json.dumps({"spec": spec_module.to_dict(self.spec)} | values, ensure_ascii=False, indent=2)


def loads(text: str) -> TrainJob:
    """The job in a JSON text. Raises ConfigError for a spec that this version cannot read."""
    values = json.loads(text)
    return TrainJob(**(values | {"spec": spec_module.parse(values["spec"])}))
