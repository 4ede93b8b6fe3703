"""From names to a network and its images: which model, which weights, which data?"""

from microtome.loading.class_folders import labelled
from microtome.loading.hubs import HubModel, hub_model
from microtome.loading.own_model import build
from microtome.loading.run_config import RunConfig, opened
from microtome.loading.subject import Subject

__all__ = ["HubModel", "RunConfig", "Subject", "build", "hub_model", "labelled", "opened"]
