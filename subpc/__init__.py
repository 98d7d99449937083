"""subpc: compiles convolutional networks to fast block-sparse native code for CPUs."""
