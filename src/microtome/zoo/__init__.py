"""Which networks are included? Those of the papers, small and large; each loads published weights unchanged."""

from microtome.zoo.architectures import Architecture, architecture, build, names, network
from microtome.zoo.hand_set import HandNet, hand_net
from microtome.zoo.imagenet import imagenet_classes
from microtome.zoo.models.densenet_cifar import CifarDenseNet, densenet40
from microtome.zoo.models.efficientnet import efficientnet_lite0
from microtome.zoo.models.fully_connected import fcnn1, fcnn5
from microtome.zoo.models.initial_weights import redraw
from microtome.zoo.models.mobilenet import MobileNetV2, mobilenet_v2
from microtome.zoo.models.resnet import ResNet, resnet18
from microtome.zoo.models.resnet_cifar import CifarResNet, resnet20, resnet56, resnet110
from microtome.zoo.models.simple_conv_net import SimpleConvNet, simple_conv_net
from microtome.zoo.models.vgg import VGG, vgg16
from microtome.zoo.weight_files import state_dicts
from microtome.zoo.weight_files.checkpoint_files import content_of
from microtome.zoo.weight_files.weights import fill, load_weights, read_weights

__all__ = [
    "VGG",
    "Architecture",
    "CifarDenseNet",
    "CifarResNet",
    "HandNet",
    "MobileNetV2",
    "ResNet",
    "SimpleConvNet",
    "architecture",
    "build",
    "content_of",
    "densenet40",
    "efficientnet_lite0",
    "fcnn1",
    "fcnn5",
    "fill",
    "hand_net",
    "imagenet_classes",
    "load_weights",
    "mobilenet_v2",
    "names",
    "network",
    "read_weights",
    "redraw",
    "resnet18",
    "resnet20",
    "resnet56",
    "resnet110",
    "simple_conv_net",
    "state_dicts",
    "vgg16",
]
