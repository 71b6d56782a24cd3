"""Latent diffusion with a U-Net: what the Stable Diffusion families share."""
