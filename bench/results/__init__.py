"""Result files, and the statistics of what they hold."""
