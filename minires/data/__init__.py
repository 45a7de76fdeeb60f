"""Data sets, whole-batch transforms, and the loader."""

from .cifar import CIFAR10 as CIFAR10
from .cifar import CIFAR100 as CIFAR100
from .dataset import ImageDataset as ImageDataset
from .digits import Digits as Digits
from .folder import ImageFolder as ImageFolder
from .loader import DataLoader as DataLoader
from .mix import cutmix as cutmix
from .mix import label_smoothing as label_smoothing
from .mix import mixup as mixup
from .mnist import MNIST as MNIST
from .mnist import FashionMNIST as FashionMNIST
from .normalization import NORMALIZATION as NORMALIZATION
from .normalization import channel_statistics as channel_statistics
from .npz import NpzDataset as NpzDataset
from .transforms import Compose as Compose
from .transforms import Cutout as Cutout
from .transforms import Normalize as Normalize
from .transforms import RandomCrop as RandomCrop
from .transforms import RandomHorizontalFlip as RandomHorizontalFlip
