"""From adapters to images: compose, sample, and what an image says about itself."""
