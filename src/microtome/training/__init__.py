"""How did the network get where it is? Training it, and reading what a training left behind."""

from microtome.training import information
from microtome.training.fit import Recipe, evaluate, fit
from microtome.training.named import RECIPES, Trained, train_network
from microtome.training.recorder import Recorder
from microtome.training.training_run import Run

__all__ = ["RECIPES", "Recipe", "Recorder", "Run", "Trained", "evaluate", "fit", "information", "train_network"]
