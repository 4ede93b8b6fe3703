"""How does a network become a site that shows what is inside?

Topics plan tasks and compute results; a store holds the results; pages are made from stored results.
"""

from microtome.atlas.atlas_run import Report, build
from microtome.atlas.planning.budget import BUDGETS, Budget, affordable
from microtome.atlas.task import Refusal, Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics import TOPICS

__all__ = [
    "BUDGETS",
    "TOPICS",
    "Budget",
    "Refusal",
    "Report",
    "Task",
    "Topic",
    "affordable",
    "build",
]
