"""From files and stores to arrays by label, and back."""
