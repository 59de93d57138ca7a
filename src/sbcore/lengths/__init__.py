"""The length distribution of a prepared data set, in numbers and a picture."""
