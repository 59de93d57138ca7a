"""What is checked before anything starts: all that a stage would refuse later for certain."""
