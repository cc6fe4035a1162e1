"""The two calls of the MLP engine, and the layers that they are made of."""
