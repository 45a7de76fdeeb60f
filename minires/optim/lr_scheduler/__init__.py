"""Learning-rate schedules: `step()` after each epoch, or each batch, sets the rate of every parameter group.

Most are a formula, `rate(initial, epoch)`, where PyTorch steps from rate to rate and comes to the same numbers. So
they can go to any epoch, and their state is little more than a count. Names and defaults of settings are PyTorch's.
"""

from .formulas import ConstantLR as ConstantLR
from .formulas import CosineAnnealingLR as CosineAnnealingLR
from .formulas import CosineAnnealingWarmRestarts as CosineAnnealingWarmRestarts
from .formulas import ExponentialLR as ExponentialLR
from .formulas import LambdaLR as LambdaLR
from .formulas import LinearLR as LinearLR
from .formulas import MultiStepLR as MultiStepLR
from .formulas import PolynomialLR as PolynomialLR
from .formulas import StepLR as StepLR
from .one_cycle import OneCycleLR as OneCycleLR
from .plateau import ReduceLROnPlateau as ReduceLROnPlateau
from .scheduler import LRScheduler as LRScheduler
from .sequential import SequentialLR as SequentialLR
