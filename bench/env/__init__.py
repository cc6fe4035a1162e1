"""`fastppo bench env`: EnvPool alone, over environments, batch sizes and threads."""
