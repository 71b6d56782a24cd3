"""The frozen weights of a base model in less memory: quantised, and swapped with the CPU's."""
