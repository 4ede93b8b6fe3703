"""How does a model become a site? A plan of tasks, a store that loses nothing, engines, and pages made of results."""

from microtome.atlas.budget import BUDGETS, Budget
from microtome.atlas.run import Report, Watch, build

__all__ = ["BUDGETS", "Budget", "Report", "Watch", "build"]
