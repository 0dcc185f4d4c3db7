"""What mean-field theory says of a net before it trains. No torch; each function names its paper."""
