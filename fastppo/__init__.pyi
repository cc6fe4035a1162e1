from fastppo.config import Config as Config
from fastppo.errors import Diverged as Diverged
from fastppo.errors import MachineError as MachineError
from fastppo.errors import UserError as UserError
from fastppo.run.library import Run as Run
from fastppo.run.library import evaluate as evaluate
from fastppo.run.library import load_policy as load_policy
from fastppo.run.library import train as train
from fastppo.saved_policy import SavedPolicy as SavedPolicy

__version__: str
