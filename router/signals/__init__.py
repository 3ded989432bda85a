"""What is measured of a request and predicted for it."""
