"""`fastppo bench learn`: what is learned, in how many steps and seconds, over seeds."""
