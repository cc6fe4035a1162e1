"""`fastppo gate`: whether one revision is slower than another, decided on a noisy machine."""
