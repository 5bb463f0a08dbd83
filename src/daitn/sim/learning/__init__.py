"""Learning worlds: recordings of real training, simulated networks, and the ground on which route
policies are compared."""
