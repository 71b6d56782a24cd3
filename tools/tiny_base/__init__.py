"""Training of the tiny demo base, and the drawn scenes that it is trained on."""
