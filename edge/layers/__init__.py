"""One file per kind of layer. Activations are f32[T, width]; the time is spent in edge.kernels."""
