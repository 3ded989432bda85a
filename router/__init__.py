"""The policy router: decides per request whether the edge or the cloud answers."""
