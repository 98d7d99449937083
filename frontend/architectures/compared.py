"""Architectures whose compiled networks are compared with PyTorch: by the tests, and in
docs/networks.md."""

COMPARED = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "wide_resnet50_2",
    "resnext50_32x4d",
    "vgg11",
    "vgg11_bn",
    "vgg16",
    "vgg16_bn",
    "densenet121",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "squeezenet1_1",
    "googlenet",
    "shufflenet_v2_x1_0",
    "regnet_y_400mf",
    "mnasnet1_0",
    "convnext_tiny",
    "timm:tf_efficientnet_lite0",
)
