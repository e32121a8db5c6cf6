"""From a RunSpec and the platform to the Kubernetes objects of a run. Pure: what is printed is what is sent.

No clock, no random number and no request belongs here: creating the objects is `submit.submission`'s.
"""

from __future__ import annotations

from lorajob.platform.run_limits import check_limits
from lorajob.submit.manifest.data import DATA_MAX_BYTES, DataFile, DataTooLarge
from lorajob.submit.manifest.data import object_name as data_name
from lorajob.submit.manifest.job import Manifests, build, owned_by, spec_of

__all__ = [
    "DATA_MAX_BYTES",
    "DataFile",
    "DataTooLarge",
    "Manifests",
    "build",
    "check_limits",
    "data_name",
    "owned_by",
    "spec_of",
]
