"""The emulated inference engine: continuous batching, pure, under any clock."""
