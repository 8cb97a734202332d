"""GANs: convolutional ones of many losses, and those that grow or have styles."""
