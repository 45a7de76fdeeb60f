"""Data sets, whole-batch transforms, and the loader."""

from .cifar import CIFAR10 as CIFAR10
from .dataset import ImageDataset as ImageDataset
from .digits import Digits as Digits
from .loader import DataLoader as DataLoader
from .transforms import Compose as Compose
from .transforms import Normalize as Normalize
from .transforms import RandomCrop as RandomCrop
from .transforms import RandomHorizontalFlip as RandomHorizontalFlip
