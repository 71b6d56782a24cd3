"""From adapters to pictures: compose, sample, and what a picture says about itself."""
