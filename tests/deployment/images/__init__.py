"""`make images`: the CPU images, built without an image registry and run as a cluster would run them."""
