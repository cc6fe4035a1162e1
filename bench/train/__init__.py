"""`fastppo bench train`: env steps per second, side by side with other libraries."""
