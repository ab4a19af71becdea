"""Many runs: started together, kept apart, resumed, and compared."""
