"""What is measured of trained runs and of images, under the commands and the studies."""
