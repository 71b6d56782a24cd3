"""What trains the demo's base and draws its images."""
