"""What makes things that the package ships, or checks a change; not part of the wheel."""
