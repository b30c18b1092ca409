"""``make demo``: the whole loop on real parts, watched live, with a summary that is measured and not claimed."""
