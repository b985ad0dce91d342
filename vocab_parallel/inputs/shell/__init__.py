"""Launch scripts read as bash reads them, without running any program of theirs."""
