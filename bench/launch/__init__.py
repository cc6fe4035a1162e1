"""Who is measured, in which process, on which clock."""
