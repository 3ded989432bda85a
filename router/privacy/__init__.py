"""What keeps a request near: tags, detection, the floor they set, and the permits that enforce it."""
