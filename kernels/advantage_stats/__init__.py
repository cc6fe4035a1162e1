"""Mean and deviation of the advantages of each minibatch."""
