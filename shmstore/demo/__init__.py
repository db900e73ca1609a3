"""The store at work: readers and clients in processes of their own, and a writer that is killed.

``sample`` has the records, ``workers`` is what the processes do, ``screen`` what is shown,
``verdict`` compares what was counted with what is in the store, and ``scene`` puts it together.
Nothing that is shown is assumed.
"""

from shmstore.demo.sample import SampleMissing
from shmstore.demo.scene import DemoFailed, run

__all__ = ["DemoFailed", "SampleMissing", "run"]
