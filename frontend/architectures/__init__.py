"""Networks by name: torchvision's, timm's, our own."""
