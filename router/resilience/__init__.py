"""What happens when a backend fails: fallback before the first text, and circuits that keep failing servers out."""
