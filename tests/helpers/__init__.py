"""What several rooms of tests share: tiny models, and an independent computation of the same."""
