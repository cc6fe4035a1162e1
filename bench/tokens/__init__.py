"""`fastppo bench tokens`: what libraries compute from a language model's tokens, and how fast."""
