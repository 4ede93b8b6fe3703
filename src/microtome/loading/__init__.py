"""From names to a network and its images: which model, which weights, which data?"""

from microtome.loading.class_folders import labelled
from microtome.loading.factory import build
from microtome.loading.run_config import RunConfig
from microtome.loading.subject import Subject

__all__ = ["RunConfig", "Subject", "build", "labelled"]
